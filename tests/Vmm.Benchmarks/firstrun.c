// Preloaded into a program: at its first KVM_RUN, writes the CPU time (user and system, all threads) that the process has used, in
// microseconds, to standard output. Counts what the program linker spends on this library as the program's own.
#define _GNU_SOURCE
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int seen;

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == KVM_RUN && !__sync_fetch_and_add(&seen, 1)) {
        struct rusage usage;
        char line[32];
        getrusage(RUSAGE_SELF, &usage);
        long us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000L + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
        if (write(1, line, snprintf(line, sizeof line, "%ld\n", us)) < 0) return -1;
    }
    return syscall(SYS_ioctl, fd, request, argument);
}
