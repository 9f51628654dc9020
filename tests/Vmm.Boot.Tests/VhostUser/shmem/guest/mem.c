/*
 * Memory of a file as a guest's programs see it.
 *
 *   mem FILE[@OFFSET] LENGTH rw|ro COMMAND...      maps it once, and does in turn:
 *       put AT TEXT | fill AT LENGTH BYTE | store AT HEX       (store: 1, 2, 4 or 8 bytes by one instruction)
 *       expect AT HEX | same AT LENGTH BYTE | load AT HEX
 *       numbers COUNT STEP          every STEPth page p begins with the 64-bit number COUNT - 1 - p
 *       sync | ask SHELL-LINE | answered TEXT                  (asks on descriptor 3, as the shell's ask does)
 *   mem churn ROUNDS SEED FILE...   writes pages of mapped files here and there, and looks whether all are as they were written
 *   mem regions CONFIG              the shared memory capabilities of a virtio-pci device: ID BAR OFFSET LENGTH
 *
 * Numbers are as strtoull reads them. What is not as it is expected is told, and the exit code is 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096

static void die(const char *what, const char *on)
{
    fprintf(stderr, "mem: %s %s: %s\n", what, on, strerror(errno));
    exit(2);
}

static uint64_t number(const char *text) { return strtoull(text, NULL, 0); }

static void *map(const char *name, uint64_t *length, int writable)
{
    char file[512];
    snprintf(file, sizeof file, "%s", name);
    char *at = strrchr(file, '@');
    uint64_t offset = 0;
    if (at) {
        *at = 0;
        offset = number(at + 1);
    }
    int fd = open(file, writable ? O_RDWR : O_RDONLY);
    if (fd < 0)
        die("open", file);
    if (*length == 0) {
        struct stat status;
        if (fstat(fd, &status))
            die("fstat", file);
        *length = status.st_size;
    }
    void *memory = mmap(NULL, *length, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, offset);
    if (memory == MAP_FAILED)
        die("mmap", file);
    close(fd);
    return memory;
}

static void ask(const char *line, char *answer, size_t size)
{
    dprintf(3, "VMM-ASK %s\n", line);
    size_t count = 0;
    char c;
    while (read(0, &c, 1) == 1 && c != '\n')
        if (count + 1 < size && c != '\r')
            answer[count++] = c;
    answer[count] = 0;
}

static int is_not(const char *what, uint64_t at, uint64_t found, uint64_t wanted)
{
    printf("%s at %#llx: %#llx, not %#llx\n", what, (unsigned long long)at, (unsigned long long)found, (unsigned long long)wanted);
    return 1;
}

/* Each access is one instruction of that size: what is not memory is emulated so. */
static uint64_t load(volatile uint8_t *from, int size)
{
    switch (size) {
    case 1: return *from;
    case 2: return *(volatile uint16_t *)from;
    case 4: return *(volatile uint32_t *)from;
    default: return *(volatile uint64_t *)from;
    }
}

static void store(volatile uint8_t *to, int size, uint64_t value)
{
    switch (size) {
    case 1: *to = value; break;
    case 2: *(volatile uint16_t *)to = value; break;
    case 4: *(volatile uint32_t *)to = value; break;
    default: *(volatile uint64_t *)to = value; break;
    }
}

static int obey(volatile uint8_t *memory, uint64_t length, char **words)
{
    char answer[4096] = "";
    while (*words) {
        char *command = *words++;
        if (!strcmp(command, "sync")) {
            if (msync((void *)memory, length, MS_SYNC))
                die("msync", "");
            continue;
        }
        char *first = *words++;
        if (!strcmp(command, "ask")) {
            ask(first, answer, sizeof answer);
            continue;
        }
        if (!strcmp(command, "answered")) {
            if (strcmp(answer, first)) {
                printf("'%s', not '%s'\n", answer, first);
                return 1;
            }
            continue;
        }
        uint64_t at = number(first);
        char *second = *words++;
        if (!strcmp(command, "put")) {
            for (int i = 0; second[i]; i++)
                memory[at + i] = second[i];
        } else if (!strcmp(command, "fill")) {
            uint64_t bytes = number(second);
            memset((void *)(memory + at), (int)number(*words++), bytes);
        } else if (!strcmp(command, "store")) {
            store(memory + at, strlen(second) / 2, strtoull(second, NULL, 16));
        } else if (!strcmp(command, "load")) {
            uint64_t found = load(memory + at, strlen(second) / 2), wanted = strtoull(second, NULL, 16);
            if (found != wanted)
                return is_not("load", at, found, wanted);
        } else if (!strcmp(command, "expect")) {
            for (int i = 0; second[2 * i]; i++) {
                char digits[3] = { second[2 * i], second[2 * i + 1], 0 };
                uint8_t found = memory[at + i], wanted = strtoul(digits, NULL, 16);
                if (found != wanted)
                    return is_not("byte", at + i, found, wanted);
            }
        } else if (!strcmp(command, "same")) {
            uint64_t bytes = number(second), wanted = number(*words++);
            for (uint64_t i = 0; i < bytes; i++)
                if (memory[at + i] != wanted)
                    return is_not("byte", at + i, memory[at + i], wanted);
        } else if (!strcmp(command, "numbers")) {
            uint64_t step = number(second);
            for (uint64_t page = 0; page < at; page += step) {
                uint64_t found = load(memory + page * PAGE, 8);
                if (found != at - 1 - page)
                    return is_not("page", page, found, at - 1 - page);
            }
        } else {
            fprintf(stderr, "mem: no command '%s'\n", command);
            return 2;
        }
    }
    return 0;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static int page_is(volatile uint64_t *page, uint64_t file, uint64_t index, uint32_t version)
{
    uint64_t seed = mix((file << 48) ^ (index << 24) ^ version);
    for (int i = 0; i < PAGE / 8; i++) {
        uint64_t wanted = version == 0 ? 0 : seed + i;
        if (page[i] != wanted) {
            printf("file %llu page %llu word %d version %u: ", (unsigned long long)file, (unsigned long long)index, i, version);
            is_not("word", index * PAGE + i * 8, page[i], wanted);
            return 0;
        }
    }
    return 1;
}

static int churn(uint64_t rounds, uint64_t seed, int count, char **names)
{
    volatile uint64_t *files[64];
    uint64_t pages[64];
    uint32_t *versions[64];
    for (int i = 0; i < count; i++) {
        uint64_t length = 0;
        files[i] = map(names[i], &length, 1);
        pages[i] = length / PAGE;
        versions[i] = calloc(pages[i], sizeof(uint32_t));
    }
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t random = mix(seed + round), file = random % count, page = (random >> 20) % pages[file];
        volatile uint64_t *words = files[file] + page * (PAGE / 8);
        if (!page_is(words, file, page, versions[file][page]))
            return 1;
        uint64_t base = mix((file << 48) ^ (page << 24) ^ ++versions[file][page]);
        for (int i = 0; i < PAGE / 8; i++)
            words[i] = base + i;
    }
    for (int i = 0; i < count; i++) {
        for (uint64_t page = 0; page < pages[i]; page++)
            if (!page_is(files[i] + page * (PAGE / 8), i, page, versions[i][page]))
                return 1;
        if (msync((void *)files[i], pages[i] * PAGE, MS_SYNC))
            die("msync", names[i]);
    }
    return 0;
}

/* VIRTIO 1.3 4.1.4.7: struct virtio_pci_cap64 with cfg_type 8. */
static int regions(const char *name)
{
    uint8_t space[256];
    int fd = open(name, O_RDONLY), found = 0;
    if (fd < 0 || read(fd, space, sizeof space) != sizeof space)
        die("read", name);
    for (int at = space[0x34], left = 48; at && left; at = space[at + 1], left--) {
        uint8_t *capability = space + at;
        if (capability[0] != 9 || capability[2] != 24 || capability[3] != 8)
            continue;
        uint32_t words[4];
        memcpy(words, capability + 8, sizeof words);
        printf("%d %d %llu %llu\n", capability[5], capability[4], words[0] | (unsigned long long)words[2] << 32, words[1] | (unsigned long long)words[3] << 32);
        found++;
    }
    return found == 0;
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count >= 5 && !strcmp(words[1], "churn"))
        return churn(number(words[2]), number(words[3]), count - 4, words + 4);
    if (count == 3 && !strcmp(words[1], "regions"))
        return regions(words[2]);
    if (count < 4)
        return 2;
    uint64_t length = number(words[2]);
    volatile uint8_t *memory = map(words[1], &length, !strcmp(words[3], "rw"));
    return obey(memory, length, words + 4);
}
