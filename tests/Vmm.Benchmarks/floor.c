// The floor: what a VMM cannot do without, and nothing else. Made and run by the benchmark.
//   floor mmio STATE COUNT    time COUNT MMIO exits of the guest in STATE; prints nanoseconds an exit
//   floor boot STATE MIB      run the guest in STATE with MIB MiB of RAM to its first port write, and end
// STATE: u32 number of CPUID leaves, u32 bytes of RAM that follow, the leaves, kvm_regs, kvm_sregs, the RAM from address 0 on.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}

static void take(int fd, void *to, size_t length)
{
    while (length > 0) {
        ssize_t n = read(fd, to, length);
        if (n <= 0)
            check(-1, "read the state");
        to = (char *)to + n;
        length -= n;
    }
}

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int timing = strcmp(argv[1], "mmio") == 0;
    long number = atol(argv[3]);
    int state = check(open(argv[2], O_RDONLY | O_CLOEXEC), "open the state");
    unsigned head[2];
    take(state, head, sizeof head);
    size_t ram_size = timing ? head[1] : (size_t)number << 20;
    int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
    int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    unsigned long long identity = 0xFFFBC000;
    check(ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity), "KVM_SET_IDENTITY_MAP_ADDR");
    check(ioctl(vm, KVM_SET_TSS_ADDR, 0xFFFBD000UL), "KVM_SET_TSS_ADDR");
    check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    void *ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ram == MAP_FAILED)
        check(-1, "mmap");
    struct kvm_userspace_memory_region region = { .memory_size = ram_size, .userspace_addr = (unsigned long)ram };
    check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    struct kvm_run *run = mmap(NULL, check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        check(-1, "mmap of the vCPU");
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + head[0] * sizeof cpuid->entries[0]);
    cpuid->nent = head[0];
    take(state, cpuid->entries, head[0] * sizeof cpuid->entries[0]);
    check(ioctl(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    take(state, &regs, sizeof regs);
    take(state, &sregs, sizeof sregs);
    take(state, ram, head[1]);
    check(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    check(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
    long exits = 0, warm_up = 500;
    volatile unsigned sink = 0;
    long long start = 0;
    for (;;) {
        if (ioctl(vcpu, KVM_RUN, 0) < 0) {
            if (errno == EINTR)
                continue;
            check(-1, "KVM_RUN");
        }
        switch (run->exit_reason) {
        case KVM_EXIT_MMIO:
            if (run->mmio.is_write)
                sink += run->mmio.data[0];
            else
                memset(run->mmio.data, 0, run->mmio.len);
            exits++;
            if (exits == warm_up)
                start = now();
            if (exits == warm_up + number) {
                printf("%.1f\n", (double)(now() - start) / number);
                return 0;
            }
            continue;
        case KVM_EXIT_IO:
            return 0;
        default:
            fprintf(stderr, "exit %u\n", run->exit_reason);
            return 1;
        }
    }
}
