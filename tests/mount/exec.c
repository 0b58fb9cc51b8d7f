/* Writers whose close comes out of an exec. Each mode goes on until the clock says UNTIL (seconds since boot), then
   says on one line how many values it wrote. Values are RECORD bytes long and begin with the writer's id. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RECORD = 256, THREADS = 3 };

extern char **environ;
static char *self;
static const char *name;
static double until;

static void fail(const char *what) {
    fprintf(stderr, "%s %s: %s: %s\n", self, name, what, strerror(errno));
    _exit(9);
}

static int over(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9 > until;
}

static void record(char *to, const char *writer) {
    memset(to, 'x', RECORD);
    memcpy(to, writer, strlen(writer));
    to[strlen(writer)] = ' ';
    to[RECORD - 1] = '\n';
}

/* Writes a value in two pieces and leaves it open, to be closed by the next exec. */
static int put(const char *key) {
    char bytes[RECORD];
    record(bytes, getenv("BATON_WRITER_ID") ? getenv("BATON_WRITER_ID") : "inherited");
    int fd = open(key, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) fail("open");
    if (write(fd, bytes, 100) != 100 || write(fd, bytes + 100, RECORD - 100) != RECORD - 100) fail("write");
    return fd;
}

static void key_of(char *to, const char *suffix) { snprintf(to, 64, "%s%s", name, suffix); }

/* Becomes a program that does nothing; the close of what is open comes out of this exec. */
static void become_nothing(void) {
    execl(self, self, "nothing", "-", "0", (char *)0);
    fail("exec");
}

static void reap(int count) {
    for (; count > 0; count--) {
        int status;
        if (wait(&status) < 0) fail("wait");
        if (status != 0) { errno = 0; fprintf(stderr, "status %d\n", status); fail("a child"); }
    }
}

/* Execs itself again and again, with a key open; meanwhile its child writes, whose ancestor is then in exec. */
static int chain(int step) {
    char key[64], writer[64], number[16], clock[32];
    if (step > 0) reap(2);
    if (over()) return 3 * step;
    pid_t child = fork();
    if (child == 0) {
        key_of(key, "-child");
        put(key);
        become_nothing();
    }
    child = fork();
    if (child == 0) {
        /* A program that declares nothing: who it is stands in the environment of the ancestor in exec. */
        char *none[] = {0};
        key_of(key, "-leaf");
        execle(self, self, "leaf", key, "0", (char *)0, none);
        fail("exec");
    }
    put(name);
    snprintf(writer, sizeof writer, "%s.%d", name, step + 1);
    setenv("BATON_WRITER_ID", writer, 1);
    snprintf(clock, sizeof clock, "%f", until);
    snprintf(number, sizeof number, "%d", step + 1);
    execl(self, self, "chain", name, clock, number, (char *)0);
    fail("exec");
    return 0;
}

/* Execs itself as fast as it can, each time with a descriptor of one handle for the exec to close. Meanwhile its
   descendants, whose program declares nothing, write through that handle: their ancestors are looked at while one of
   them waits for the answer about the very same handle. */
static int shared(int step, int begun) {
    char writer[64], number[16], clock[32];
    const char *next = "waiting";
    if (!begun) {
        if (over()) return step;
        if (dup2(put(name), 90) != 90) fail("dup2");
        if (fork() == 0) {
            char *none[] = {0};
            execle(self, self, "over", getenv("BATON_WRITER_ID"), "0", (char *)0, none);
            fail("exec");
        }
    } else {
        int status;
        pid_t ended = waitpid(-1, &status, WNOHANG);
        if (ended < 0 || (ended > 0 && status != 0)) fail("a child");
        if (ended > 0) {
            if (close(90) != 0) fail("close");
            snprintf(writer, sizeof writer, "%s.%d", name, ++step);
            setenv("BATON_WRITER_ID", writer, 1);
            next = "shared";
        } else if (fcntl(90, F_DUPFD_CLOEXEC, 0) < 0) fail("dup");
    }
    snprintf(clock, sizeof clock, "%f", until);
    snprintf(number, sizeof number, "%d", step);
    execl(self, self, next, name, clock, number, (char *)0);
    fail("exec");
    return 0;
}

/* Writes the record of this writer over itself, then has a child do the same, and so on: what is known of one parent's
   ancestors serves none of the others. */
static int over_itself(int depth) {
    char bytes[RECORD];
    record(bytes, name);
    if (pwrite(90, bytes, RECORD, 0) != RECORD) fail("pwrite");
    if (depth == 6) return 0;
    if (fork() == 0) _exit(over_itself(depth + 1));
    reap(1);
    return 0;
}

/* Several threads fork and exec, each on a key of its own, while another thread of theirs writes. */
static void *forks(void *at) {
    char key[64], suffix[8];
    long count = 0;
    snprintf(suffix, sizeof suffix, "-%ld", (long)at);
    key_of(key, suffix);
    for (; !over(); count++) {
        pid_t child = fork();
        if (child == 0) {
            put(key);
            become_nothing();
        }
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) fail("a child");
        if (at == 0 && close(put(name)) != 0) fail("close");
        count += at == 0;
    }
    return (void *)count;
}

static int threads(void) {
    pthread_t all[THREADS];
    long sum = 0;
    for (long at = 0; at < THREADS; at++)
        if (pthread_create(&all[at], 0, forks, (void *)at)) fail("thread");
    for (int at = 0; at < THREADS; at++) {
        void *count;
        pthread_join(all[at], &count);
        sum += (long)count;
    }
    return (int)sum;
}

/* A thread writes the same bytes over and over, until the exec of another thread ends it. */
static void *again(void *fd) {
    char bytes[RECORD];
    record(bytes, getenv("BATON_WRITER_ID"));
    while (pwrite((int)(long)fd, bytes, RECORD, 0) == RECORD) {}
    return 0;
}

static int abandon(void) {
    int count = 0;
    for (; !over(); count++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            long fd = put(name);
            for (int n = 0; n < 2; n++) pthread_create(&thread, 0, again, (void *)fd);
            usleep(500);
            become_nothing();
        }
        reap(1);
    }
    return count;
}

/* posix_spawn: the child shares its parent's memory until it has exec'd, and its output is the key. */
static int spawns(void) {
    volatile int count = 0;
    for (; !over(); count += 2) {
        char key[64];
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, 1, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        char *words[] = {self, "print", "-", "0", 0};
        pid_t child;
        if (posix_spawn(&child, self, &actions, 0, words, environ)) fail("spawn");
        posix_spawn_file_actions_destroy(&actions);
        key_of(key, "-vfork");
        int fd = put(key);
        if (vfork() == 0) execl(self, self, "nothing", "-", "0", (char *)0), _exit(8);
        reap(2);
        if (close(fd) != 0) fail("close");
    }
    return count;
}

/* Programs that lie on the mount: a copy of this one, and a script. */
static int stored(void) {
    int count = 0;
    for (; !over(); count += 2) {
        char key[64];
        if (fork() == 0) {
            put(name);
            execl("./program", "./program", "nothing", "-", "0", (char *)0);
            fail("exec of a program on the mount");
        }
        key_of(key, "-script");
        if (fork() == 0) {
            put(key);
            execl("./script", "./script", (char *)0);
            fail("exec of a script on the mount");
        }
        reap(2);
    }
    return count;
}

static void read_all(const char *process, const char *file) {
    char path[512], bytes[4096];
    snprintf(path, sizeof path, "/proc/%s/%s", process, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    while (read(fd, bytes, sizeof bytes) > 0) {}
    close(fd);
}

static void read_links(const char *process, const char *dir) {
    char path[512], to[4096];
    snprintf(path, sizeof path, "/proc/%s/%s", process, dir);
    DIR *open = opendir(path);
    struct dirent *entry;
    while (open && (entry = readdir(open)))
        if (readlinkat(dirfd(open), entry->d_name, to, sizeof to) < 0) continue;
    if (open) closedir(open);
}

/* What ps, pgrep -f, lsof and debuggers read of every process; all of it waits for an exec. */
static void look_at(const char *process) {
    static const char *files[] = {"stat", "status", "cmdline", "environ", "maps", "io", "wchan", "auxv", "stack", 0};
    for (const char **file = files; *file; file++) read_all(process, *file);
    read_links(process, "");
    read_links(process, "fd");
    read_links(process, "ns");
}

/* Is this process one of this test's? Others may hang for reasons of their own, and whoever looks hangs with them. */
static int is_ours(const char *process) {
    char path[512], line[256];
    int group = 0;
    snprintf(path, sizeof path, "/proc/%s/status", process);
    FILE *status = fopen(path, "re");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "NSpgid:", 7)) group = atoi(line + 7);
    if (status) fclose(status);
    return group == getpgrp();
}

static int walk(void) {
    int count = 0;
    while (!over()) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        while (proc && (entry = readdir(proc)))
            if (strspn(entry->d_name, "0123456789") == strlen(entry->d_name) && is_ours(entry->d_name))
                look_at(entry->d_name);
        closedir(proc);
        count++;
    }
    return count;
}

/* Traces writers through their calls and their exec, and looks at them at every stop, as strace and debuggers do. */
static int trace(void) {
    int count = 0;
    for (; !over(); count++) {
        pid_t child = fork();
        if (child == 0) {
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            raise(SIGSTOP);
            put(name);
            become_nothing();
        }
        char process[16];
        int status;
        snprintf(process, sizeof process, "%d", child);
        while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
            look_at(process);
            ptrace(PTRACE_SYSCALL, child, 0, 0);
        }
        if (status != 0) fail("the traced one");
    }
    return count;
}

int main(int count, char **words) {
    if (count < 4) return 2;
    self = words[0];
    name = words[2];
    until = atof(words[3]);
    const char *mode = words[1];
    int values = 0;
    if (!strcmp(mode, "nothing")) return 0;
    if (!strcmp(mode, "leaf")) return put(name), 0;
    if (!strcmp(mode, "print")) {
        char bytes[RECORD];
        record(bytes, getenv("BATON_WRITER_ID"));
        return write(1, bytes, RECORD) != RECORD;
    }
    if (!strcmp(mode, "over")) return over_itself(0);
    if (!strcmp(mode, "chain")) values = chain(count > 4 ? atoi(words[4]) : 0);
    else if (!strcmp(mode, "shared")) values = shared(count > 4 ? atoi(words[4]) : 0, 0);
    else if (!strcmp(mode, "waiting") && count > 4) values = shared(atoi(words[4]), 1);
    else if (!strcmp(mode, "threads")) values = threads();
    else if (!strcmp(mode, "abandon")) values = abandon();
    else if (!strcmp(mode, "spawn")) values = spawns();
    else if (!strcmp(mode, "stored")) values = stored();
    else if (!strcmp(mode, "walk")) values = walk();
    else if (!strcmp(mode, "trace")) values = trace();
    else return 2;
    printf("%d\n", values);
    return 0;
}
