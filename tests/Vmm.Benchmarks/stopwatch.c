// stopwatch MARKER COMMAND...: runs a command with its output on a pipe, and prints three times in ms, all from just before its
// fork: the marker in its output, its end, and the CPU time (user and system) that it used. Ends with 1 where the marker never came.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    static char output[1 << 20];
    size_t length = 0;
    int ends[2], keyboard[2], status;
    double marked = -1;
    if (argc < 3 || pipe(ends) != 0 || pipe(keyboard) != 0) return 2;
    double start = now();
    pid_t child = fork();
    if (child == 0) {
        dup2(keyboard[0], 0); // Stays open and says nothing: QEMU does not get far with an input that is at its end.
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        close(keyboard[0]);
        close(keyboard[1]);
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    close(ends[1]);
    for (;;) {
        if (length > sizeof output / 2) { // Keeps the end, which may hold the marker's beginning.
            memmove(output, output + length - 4096, 4096);
            length = 4096;
        }
        ssize_t count = read(ends[0], output + length, 4096);
        if (count <= 0) break;
        length += count;
        output[length] = 0;
        if (marked < 0 && strstr(output, argv[1])) marked = now() - start;
    }
    struct rusage usage;
    if (wait4(child, &status, 0, &usage) != child) return 2;
    double ended = now() - start;
    if (marked < 0) {
        fprintf(stderr, "stopwatch: '%s' did not come; the command ended with status 0x%x and wrote last:\n%s\n", argv[1], status,
                length > 2000 ? output + length - 2000 : output);
        return 1;
    }
    printf("%.3f %.3f %.3f\n", marked, ended,
           (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3);
    return 0;
}
