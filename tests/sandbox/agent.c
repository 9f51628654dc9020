// The sandbox's agent: runs commands for the host over a virtio-serial port, and is PID 1.
//
// Frames both ways: u8 type, u8 0, u16 id, u32 length (little-endian), then length bytes. The id is the command's, chosen by the host.
//   host -> agent  'R' run: u8 flags (1 = on a pty), u16 rows, u16 columns, then strings ended by NUL: directory, command, NAME=VALUE...
//                  'I' input for the command (length 0: end of file)    'K' u8 signal to the command (9: to all its descendants)
//                  'W' u16 rows, u16 columns                            'Q' power off
//   agent -> host  'H' hello: text          'O' 'E' its stdout, stderr  'C' u32: so many more bytes of input may come
//                  'X' u8 0 exited / 1 killed by a signal, u8 code      'F' the command could not be started: text
// The host may send INPUT_WINDOW bytes of input ahead of 'C' frames.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INPUT_WINDOW = 65536, MAX_COMMANDS = 32, MAX_FRAME = 1 << 20, CHUNK = 32768 };

struct command {
    int used, exited, status;
    uint16_t id;
    pid_t pid;
    int in, out, err;             // -1: closed; with a pty, in == out
    int is_pty, in_eof;
    char *pending;                // input not yet taken by the command
    size_t pending_start, pending_length;
    char cgroup[64];
};

static struct command commands[MAX_COMMANDS];
static int port = -1;

static void die(const char *what)
{
    fprintf(stderr, "vmm-agent: %s: %s\n", what, strerror(errno));
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();
}

static void write_port(const void *data, size_t length)
{
    const char *p = data;
    while (length) {
        ssize_t n = write(port, p, length);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) {
                struct pollfd room = { port, POLLOUT, 0 };
                poll(&room, 1, 1000);
                if (!(room.revents & POLLHUP)) continue;
            }
            die("the host closed the channel");
        }
        p += n;
        length -= n;
    }
}

static void send_frame(char type, uint16_t id, const void *data, uint32_t length)
{
    // One write per frame where it fits: each write is a round trip to the host.
    static char buffer[8 + CHUNK];
    buffer[0] = type;
    buffer[1] = 0;
    memcpy(buffer + 2, &id, 2);
    memcpy(buffer + 4, &length, 4);
    memcpy(buffer + 8, data, length);
    write_port(buffer, 8 + length);
}

static void send_failure(uint16_t id, const char *what)
{
    char text[512];
    int n = snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
    send_frame('F', id, text, n < (int)sizeof text ? n : (int)sizeof text - 1);
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t n = write(fd, text, strlen(text));
    close(fd);
    return n < 0 ? -1 : 0;
}

static struct command *find(uint16_t id)
{
    for (int i = 0; i < MAX_COMMANDS; i++)
        if (commands[i].used && commands[i].id == id) return &commands[i];
    return NULL;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void start(uint16_t id, char *payload, uint32_t length)
{
    struct command *c = NULL;
    for (int i = 0; i < MAX_COMMANDS && !c; i++)
        if (!commands[i].used) c = &commands[i];
    if (!c || find(id) || length < 7 || payload[length - 1]) {
        errno = !c ? EMFILE : EINVAL;
        send_failure(id, "The agent cannot take the command");
        return;
    }
    struct winsize size = { 0 };
    int flags = payload[0];
    memcpy(&size.ws_row, payload + 1, 2);
    memcpy(&size.ws_col, payload + 3, 2);
    char *directory = payload + 5, *end = payload + length;
    char *text = directory + strlen(directory) + 1;
    if (text >= end) { errno = EINVAL; send_failure(id, "The agent cannot take the command"); return; }

    memset(c, 0, sizeof *c);
    c->id = id;
    c->is_pty = flags & 1;
    c->in = c->out = c->err = -1;
    int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 }, master = -1, slave = -1;
    if (c->is_pty) {
        if (openpty(&master, &slave, NULL, NULL, &size)) { send_failure(id, "openpty"); return; }
        fcntl(master, F_SETFD, FD_CLOEXEC);
    } else if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) {
        send_failure(id, "pipe");
        int *all[] = { in, out, err };
        for (int i = 0; i < 3; i++) { close_fd(&all[i][0]); close_fd(&all[i][1]); }
        return;
    }
    // A control group per command, so that all its descendants can be ended. Without cgroups only its session is.
    snprintf(c->cgroup, sizeof c->cgroup, "/sys/fs/cgroup/vmm-%u", id);
    if (mkdir(c->cgroup, 0755) && errno != EEXIST) c->cgroup[0] = 0;

    fflush(NULL);
    c->pid = fork();
    if (c->pid == 0) {
        char path[96], self[16];
        if (c->cgroup[0]) {
            snprintf(path, sizeof path, "%s/cgroup.procs", c->cgroup);
            snprintf(self, sizeof self, "%d", getpid());
            write_file(path, self);
        }
        setsid();
        if (c->is_pty) {
            ioctl(slave, TIOCSCTTY, 0);
            for (int i = 0; i < 3; i++) dup2(slave, i);
        } else {
            dup2(in[0], 0);
            dup2(out[1], 1);
            dup2(err[1], 2);
        }
        // O_CLOEXEC covers our own descriptors; the pty's slave is the one without it.
        if (slave > 2) close(slave);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        for (char *variable = text + strlen(text) + 1; variable < end; variable += strlen(variable) + 1) putenv(variable);
        if (*directory && chdir(directory)) {
            dprintf(2, "vmm-agent: cannot enter %s: %s\n", directory, strerror(errno));
            _exit(126);
        }
        execl("/bin/sh", "sh", "-c", text, (char *)NULL);
        dprintf(2, "vmm-agent: cannot run /bin/sh: %s\n", strerror(errno));
        _exit(127);
    }
    close_fd(&in[0]);
    close_fd(&out[1]);
    close_fd(&err[1]);
    close_fd(&slave);
    if (c->pid < 0) {
        send_failure(id, "fork");
        close_fd(&in[1]);
        close_fd(&out[0]);
        close_fd(&err[0]);
        close_fd(&master);
        return;
    }
    c->in = c->is_pty ? master : in[1];
    c->out = c->is_pty ? master : out[0];
    c->err = err[0];
    fcntl(c->in, F_SETFL, O_NONBLOCK);
    fcntl(c->out, F_SETFL, O_NONBLOCK);
    if (c->err >= 0) fcntl(c->err, F_SETFL, O_NONBLOCK);
    c->pending = malloc(INPUT_WINDOW);
    if (!c->pending) die("malloc");
    c->used = 1;
}

static void close_input(struct command *c)
{
    if (c->in >= 0 && !c->is_pty) close(c->in);
    if (c->is_pty && c->in >= 0) {
        // A terminal's end of file is a character, VEOF; the descriptor is also the one that its output comes from.
        char eof = 4;
        if (write(c->in, &eof, 1) < 0) { }
    }
    c->in = -1;
}

static void push_input(struct command *c)
{
    uint32_t taken = 0;
    while (c->pending_length) {
        size_t contiguous = INPUT_WINDOW - c->pending_start;
        if (contiguous > c->pending_length) contiguous = c->pending_length;
        ssize_t n = c->in < 0 ? (ssize_t)contiguous : write(c->in, c->pending + c->pending_start, contiguous);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) { if (!c->is_pty) close_fd(&c->in); c->in = -1; continue; } // nobody reads: the rest is dropped
        c->pending_start = (c->pending_start + n) % INPUT_WINDOW;
        c->pending_length -= n;
        taken += n;
    }
    if (taken) send_frame('C', c->id, &taken, 4);
    if (!c->pending_length && c->in_eof && c->in >= 0) close_input(c);
}

static void take_input(struct command *c, const char *data, uint32_t length)
{
    if (!length) c->in_eof = 1;
    if (length > INPUT_WINDOW - c->pending_length) return; // the host broke the window
    for (uint32_t done = 0; done < length;) {
        size_t end = (c->pending_start + c->pending_length) % INPUT_WINDOW;
        size_t part = INPUT_WINDOW - end;
        if (part > length - done) part = length - done;
        memcpy(c->pending + end, data + done, part);
        c->pending_length += part;
        done += part;
    }
    push_input(c);
}

static void send_signal(struct command *c, int number)
{
    if (number == SIGKILL && c->cgroup[0]) {
        char path[96];
        snprintf(path, sizeof path, "%s/cgroup.kill", c->cgroup);
        if (!write_file(path, "1")) return;
    }
    if (!c->exited) {
        // The group, so that a shell's child gets it too; a shell waits for its child and reports its end.
        if (kill(-c->pid, number)) kill(c->pid, number);
    }
}

// Passes on up to limit bytes of what there is.
static void pump(struct command *c, int *fd, char type, size_t limit)
{
    static char data[CHUNK];
    while (*fd >= 0 && limit) {
        ssize_t n = read(*fd, data, limit < sizeof data ? limit : sizeof data);
        if (n > 0) {
            send_frame(type, c->id, data, n);
            limit -= n;
            continue;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (c->is_pty) c->in = -1;
        close_fd(fd); // end of file, or EIO from a pty whose slave is closed
    }
}

// As much as can be in there now: a background child that goes on writing must not keep us.
static size_t backlog(const struct command *c, int fd)
{
    int n = 0;
    return c->is_pty ? 1 << 20 : fd >= 0 && !ioctl(fd, FIONREAD, &n) ? (size_t)n : 0;
}

static void finish(struct command *c)
{
    // What it wrote before it ended has to arrive; what a background child of it writes later has not.
    pump(c, &c->out, 'O', backlog(c, c->out));
    pump(c, &c->err, 'E', backlog(c, c->err));
    if (!c->is_pty) close_fd(&c->in);
    close_fd(&c->out);
    close_fd(&c->err);
    free(c->pending);
    if (c->cgroup[0]) rmdir(c->cgroup); // stays if background children are in it
    c->used = 0;
    unsigned char end[2] = { WIFSIGNALED(c->status), WIFSIGNALED(c->status) ? WTERMSIG(c->status) : WEXITSTATUS(c->status) };
    send_frame('X', c->id, end, 2);
}

static void handle(char type, uint16_t id, char *payload, uint32_t length)
{
    struct command *c = find(id);
    switch (type) {
        case 'R': start(id, payload, length); break;
        case 'I': if (c) take_input(c, payload, length); break;
        case 'K': if (c && length == 1) send_signal(c, payload[0]); break;
        case 'W':
            if (c && c->is_pty && length == 4) {
                struct winsize size = { 0 };
                memcpy(&size.ws_row, payload, 2);
                memcpy(&size.ws_col, payload + 2, 2);
                ioctl(c->out, TIOCSWINSZ, &size);
            }
            break;
        case 'Q': sync(); reboot(RB_POWER_OFF); break;
    }
}

static void read_frames(void)
{
    static char *buffer;
    static size_t filled;
    if (!buffer && !(buffer = malloc(MAX_FRAME + 8))) die("malloc");
    ssize_t n = read(port, buffer + filled, MAX_FRAME + 8 - filled);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) die("the host closed the channel");
    filled += n;
    size_t used = 0;
    while (filled - used >= 8) {
        uint16_t id;
        uint32_t length;
        memcpy(&id, buffer + used + 2, 2);
        memcpy(&length, buffer + used + 4, 4);
        if (length > MAX_FRAME) { errno = EPROTO; die("a frame of the host is too long"); }
        if (filled - used < 8 + length) break;
        handle(buffer[used], id, buffer + used + 8, length);
        used += 8 + length;
    }
    memmove(buffer, buffer + used, filled - used);
    filled -= used;
}

int main(int count, char **arguments)
{
    const char *path = count > 1 ? arguments[1] : "/dev/vport0p1";
    // The device node appears when the driver has talked to the device.
    for (int i = 0; i < 500 && (port = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)) < 0; i++) usleep(10000);
    if (port < 0) die(path);
    // The port counts as hung up until the driver has been told that the host is there.
    for (int i = 0; i < 500; i++) {
        struct pollfd state = { port, POLLOUT, 0 };
        poll(&state, 1, 0);
        if (!(state.revents & POLLHUP)) break;
        usleep(10000);
    }

    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    signal(SIGPIPE, SIG_IGN);
    int child_events = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (child_events < 0) die("signalfd");
    const char *hello = "vmm-agent 1";
    send_frame('H', 0, hello, strlen(hello));

    for (;;) {
        struct pollfd waits[2 + 3 * MAX_COMMANDS];
        struct { struct command *command; char type; } subjects[2 + 3 * MAX_COMMANDS];
        int n = 0;
        waits[n++] = (struct pollfd){ port, POLLIN, 0 };
        waits[n++] = (struct pollfd){ child_events, POLLIN, 0 };
        for (int i = 0; i < MAX_COMMANDS; i++) {
            struct command *c = &commands[i];
            if (!c->used) continue;
            if (c->out >= 0) { subjects[n].command = c; subjects[n].type = 'O'; waits[n++] = (struct pollfd){ c->out, POLLIN, 0 }; }
            if (c->err >= 0) { subjects[n].command = c; subjects[n].type = 'E'; waits[n++] = (struct pollfd){ c->err, POLLIN, 0 }; }
            if (c->in >= 0 && c->pending_length) {
                subjects[n].command = c;
                subjects[n].type = 'I';
                waits[n++] = (struct pollfd){ c->in, POLLOUT, 0 };
            }
        }
        if (poll(waits, n, -1) < 0 && errno != EINTR) die("poll");
        for (int i = 2; i < n; i++) {
            if (!waits[i].revents) continue;
            struct command *c = subjects[i].command;
            if (subjects[i].type == 'O') pump(c, &c->out, 'O', CHUNK);
            else if (subjects[i].type == 'E') pump(c, &c->err, 'E', CHUNK);
            else push_input(c);
        }
        if (waits[1].revents) {
            struct signalfd_siginfo info;
            while (read(child_events, &info, sizeof info) > 0) { }
            int status;
            pid_t pid;
            // As PID 1 it also gets everyone's orphans; those are only reaped.
            while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                for (int i = 0; i < MAX_COMMANDS; i++)
                    if (commands[i].used && commands[i].pid == pid) { commands[i].exited = 1; commands[i].status = status; finish(&commands[i]); }
        }
        // Hang-up without data: the host side of the port is gone, so nobody needs this machine.
        if (waits[0].revents & POLLIN) read_frames();
        else if (waits[0].revents & POLLHUP) die("the host closed the channel");
    }
}
