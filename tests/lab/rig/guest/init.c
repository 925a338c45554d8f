/*
 * The whole userland of a lab guest: PID 1, and nothing else.
 *
 * It counts, and writes the count to the serial console ten times a second, so that anyone who reads
 * the console's log can prove from outside that the guest never rebooted, never lost a moment and
 * never ran twice. It makes CPU and memory load, set on the kernel command line (lab.cpu=80) or at
 * any time through libvirt's guest-agent channel:
 *
 *   lab-set {cpu: percent of a vCPU per thread, threads, dirty: MB/s, ws: MiB written to, tick: ms,
 *            reset: forget the largest gap}
 *   lab-get -> boot, beats, ticks, largest_gap_ms, dirtied_pages, burned_ms ...
 *   guest-ping, guest-sync, guest-sync-delimited, guest-info, guest-shutdown
 *
 * Console: "beat BOOT NUMBER UPTIME_MS LARGEST_GAP_MS", NUMBER without holes from 1.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 16
#define BEAT_MS 100
#define LOAD_PERIOD_MS 100
#define DIRTY_PERIOD_MS 10
#define PAGE 4096L
#define RESERVED_MIB 40 /* left to the kernel when the working set is checked */
#define MESSAGE 4096

static atomic_long cpu_percent, load_threads, dirty_mb, ws_mib = 16, tick_ms = 50;
static atomic_long beats, ticks, largest_gap_ms, burned_ms, dirtied_pages;
static atomic_long disk_boots, disk_writes, disk_errors;
static pthread_mutex_t settings_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t settings_changed = PTHREAD_COND_INITIALIZER;
static uint64_t boot_id;
static int console = -1;

/* ---- time ---- */

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void sleep_until_us(int64_t when)
{
    struct timespec t = { when / 1000000, (when % 1000000) * 1000 };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void sleep_ms(long ms)
{
    sleep_until_us(now_us() + ms * 1000);
}

/* ---- console ---- */

static void say(const char *format, ...)
{
    char line[256];
    va_list list;
    int length;

    va_start(list, format);
    length = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (console >= 0 && write(console, line, length) < 0)
        return; /* there is nobody else to tell */
}

/* ---- the counter ---- */

/* Real-time priority: the count must stand still only when the whole guest does. */
static void *count(void *unused)
{
    struct sched_param priority = { .sched_priority = 50 };
    int64_t last = now_us(), next_beat = last, now;

    (void)unused;
    pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
    for (;;) {
        sleep_until_us(last + tick_ms * 1000);
        now = now_us();
        ticks++;
        if ((now - last) / 1000 > largest_gap_ms)
            largest_gap_ms = (now - last) / 1000;
        last = now;
        if (now < next_beat)
            continue;
        next_beat = now + BEAT_MS * 1000 - 5000;
        beats++;
        say("beat %016llx %ld %lld %ld\n", (unsigned long long)boot_id, (long)beats,
            (long long)now / 1000, (long)largest_gap_ms);
    }
    return NULL;
}

/* ---- load ---- */

/* Whoever has no load to make sleeps until it has: each waking costs an emulated machine's host. */
static void sleep_while(int (*idle)(long), long number)
{
    pthread_mutex_lock(&settings_lock);
    while (idle(number))
        pthread_cond_wait(&settings_changed, &settings_lock);
    pthread_mutex_unlock(&settings_lock);
}

static int has_nothing_to_burn(long number)
{
    return number >= load_threads || cpu_percent == 0;
}

static int has_nothing_to_soil(long unused)
{
    (void)unused;
    return dirty_mb == 0;
}

/* About half a millisecond of work: the clock is dear to read in an emulated machine. */
static void work(void)
{
    static volatile uint64_t sink;
    uint64_t x = sink | 1;

    for (int i = 0; i < 20000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    sink = x;
}

static void *burn(void *number)
{
    long self = (long)number;
    int64_t start, end;

    for (;;) {
        sleep_while(has_nothing_to_burn, self);
        start = now_us();
        end = start + cpu_percent * LOAD_PERIOD_MS * 10;
        while (now_us() < end)
            work();
        burned_ms += (now_us() - start) / 1000;
        sleep_until_us(start + LOAD_PERIOD_MS * 1000);
    }
    return NULL;
}

static int fill(char *memory, long bytes)
{
    uint64_t x = boot_id | 1;

    for (long i = 0; i < bytes; i += 8) { /* not to be compressed, not to be a zero page */
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(memory + i, &x, 8);
    }
    return 0;
}

/* Writes to whole pages of the working set in turn, `dirty_mb` million bytes of pages a second. */
static void *soil(void *unused)
{
    char *memory = NULL;
    long size = 0, page = 0;
    double owed = 0;
    int64_t last = now_us(), now;

    (void)unused;
    for (;;) {
        sleep_while(has_nothing_to_soil, 0);
        sleep_ms(DIRTY_PERIOD_MS);
        now = now_us();
        owed += dirty_mb * 1e6 / PAGE * (double)(now - last) / 1e6;
        if (owed > dirty_mb * 1e6 / PAGE / 10) /* what was missed for > 0.1 s is not made up for */
            owed = dirty_mb * 1e6 / PAGE / 10;
        last = now;
        if (size != ws_mib * 1048576) {
            if (memory)
                munmap(memory, size);
            size = ws_mib * 1048576;
            memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            fill(memory, size);
            page = 0;
        }
        for (; owed >= 1; owed--) {
            *(volatile int64_t *)(memory + page * PAGE + 64) = now + page;
            page = (page + 1) % (size / PAGE);
            dirtied_pages++;
        }
    }
    return NULL;
}

/* ---- disk ---- */

struct disk_record {
    char magic[8];
    uint64_t boots, writes, boot_id;
};

/* A record at the start of the disk outlives the guest; a block behind it is written each second. */
static void *use_disk(void *unused)
{
    static char block[PAGE] __attribute__((aligned(4096)));
    struct disk_record *record = (struct disk_record *)block;
    int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);

    (void)unused;
    if (fd < 0)
        return NULL;
    if (pread(fd, block, PAGE, 0) != PAGE || memcmp(record->magic, "LABDISK1", 8) != 0) {
        memset(block, 0, PAGE);
        memcpy(record->magic, "LABDISK1", 8);
    }
    disk_boots = ++record->boots;
    record->boot_id = boot_id;
    for (;; sleep_ms(1000)) {
        record->writes++;
        if (pwrite(fd, block, PAGE, 0) != PAGE ||
            pwrite(fd, block, PAGE, PAGE * (1 + (long)record->writes % 512)) != PAGE)
            disk_errors++;
        disk_writes = record->writes;
    }
    return NULL;
}

/* ---- settings ---- */

struct setting {
    const char *name;
    atomic_long *value;
    long least, most;
};

static const struct setting settings[] = {
    { "cpu", &cpu_percent, 0, 100 },
    { "threads", &load_threads, 0, MAX_THREADS },
    { "dirty", &dirty_mb, 0, 2000 },
    { "ws", &ws_mib, 1, 65536 },
    { "tick", &tick_ms, 1, 1000 },
};
#define SETTINGS (sizeof settings / sizeof settings[0])

static long memory_mib(void)
{
    struct sysinfo info;

    sysinfo(&info);
    return (long)(info.totalram * info.mem_unit / 1048576);
}

static long most_of(const struct setting *setting)
{
    return setting->value == &ws_mib ? memory_mib() - RESERVED_MIB : setting->most;
}

/* The number after "name": in a message, if it is there. */
static int find_number(const char *message, const char *name, long *value)
{
    char key[32], *end;
    const char *at;

    snprintf(key, sizeof key, "\"%s\"", name);
    at = strstr(message, key);
    if (!at)
        return 0;
    at += strlen(key);
    at += strspn(at, " :");
    *value = strtol(at, &end, 10);
    return end != at;
}

static void read_command_line(void)
{
    char text[MESSAGE] = "", key[32];
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    const char *at;

    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        return;
    close(fd);
    for (size_t i = 0; i < SETTINGS; i++) {
        snprintf(key, sizeof key, " lab.%s=", settings[i].name);
        at = strstr(text, key);
        if (at)
            *settings[i].value = strtol(at + strlen(key), NULL, 10);
    }
}

/* ---- the guest agent ---- */

static void answer(int port, const char *format, ...)
{
    char line[MESSAGE];
    size_t length, sent = 0;
    ssize_t n;
    va_list list;

    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    length = strlen(line);
    while (sent < length) {
        n = write(port, line + sent, length - sent);
        if (n > 0)
            sent += n;
        else if (errno == EAGAIN || errno == EINTR)
            sleep_ms(5);
        else
            return;
    }
}

static void refuse(int port, const char *class, const char *why)
{
    answer(port, "{\"error\":{\"class\":\"%s\",\"desc\":\"%s\"}}\n", class, why);
}

static void lab_set(int port, const char *message)
{
    long values[SETTINGS], ignored;
    int present[SETTINGS];
    char why[128];

    for (size_t i = 0; i < SETTINGS; i++) {
        present[i] = find_number(message, settings[i].name, &values[i]);
        if (present[i] && (values[i] < settings[i].least || values[i] > most_of(&settings[i]))) {
            snprintf(why, sizeof why, "%s must be %ld to %ld", settings[i].name, settings[i].least,
                     most_of(&settings[i]));
            refuse(port, "GenericError", why);
            return;
        }
    }
    pthread_mutex_lock(&settings_lock);
    for (size_t i = 0; i < SETTINGS; i++)
        if (present[i])
            *settings[i].value = values[i];
    pthread_cond_broadcast(&settings_changed);
    pthread_mutex_unlock(&settings_lock);
    if (find_number(message, "reset", &ignored))
        largest_gap_ms = 0;
    answer(port, "{\"return\":{}}\n");
}

static void lab_get(int port)
{
    answer(port,
           "{\"return\":{\"boot\":\"%016llx\",\"beats\":%ld,\"ticks\":%ld,\"uptime_ms\":%lld,"
           "\"largest_gap_ms\":%ld,\"burned_ms\":%ld,\"dirtied_pages\":%ld,\"cpu_percent\":%ld,"
           "\"threads\":%ld,\"dirty_mb_per_s\":%ld,\"ws_mib\":%ld,\"tick_ms\":%ld,\"vcpus\":%d,"
           "\"memory_mib\":%ld,\"disk_boots\":%ld,\"disk_writes\":%ld,\"disk_errors\":%ld}}\n",
           (unsigned long long)boot_id, (long)beats, (long)ticks, (long long)now_us() / 1000,
           (long)largest_gap_ms, (long)burned_ms, (long)dirtied_pages, (long)cpu_percent,
           (long)load_threads, (long)dirty_mb, (long)ws_mib, (long)tick_ms, get_nprocs(),
           memory_mib(), (long)disk_boots, (long)disk_writes, (long)disk_errors);
}

static void shut_down(const char *message)
{
    say("shutdown %016llx\n", (unsigned long long)boot_id);
    sync();
    reboot(strstr(message, "\"reboot\"") ? RB_AUTOBOOT : RB_POWER_OFF);
}

static int asks(const char *message, const char *command)
{
    char quoted[64];

    snprintf(quoted, sizeof quoted, "\"%s\"", command);
    return strstr(message, quoted) != NULL;
}

static void handle(int port, const char *message)
{
    long id = 0;

    if (asks(message, "guest-sync-delimited")) {
        find_number(message, "id", &id);
        answer(port, "\xff{\"return\":%ld}\n", id);
    } else if (asks(message, "guest-sync")) {
        find_number(message, "id", &id);
        answer(port, "{\"return\":%ld}\n", id);
    } else if (asks(message, "guest-ping")) {
        answer(port, "{\"return\":{}}\n");
    } else if (asks(message, "guest-info")) {
        answer(port, "{\"return\":{\"version\":\"lab\",\"supported_commands\":[]}}\n");
    } else if (asks(message, "guest-shutdown")) {
        shut_down(message);
    } else if (asks(message, "lab-set")) {
        lab_set(port, message);
    } else if (asks(message, "lab-get")) {
        lab_get(port);
    } else {
        refuse(port, "CommandNotFound", "a lab guest does not know this command");
    }
}

/* There is no udev to name the port. */
static int open_port(void)
{
    char path[300], name[64];
    struct dirent *entry;
    int fd, port = -1;
    DIR *directory = opendir("/sys/class/virtio-ports");

    while (port < 0 && directory && (entry = readdir(directory))) {
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        memset(name, 0, sizeof name);
        if (read(fd, name, sizeof name - 1) > 0 && strncmp(name, "org.qemu.guest_agent.0", 22) == 0) {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            port = open(path, O_RDWR | O_CLOEXEC);
        }
        close(fd);
    }
    if (directory)
        closedir(directory);
    return port;
}

static void serve(int port)
{
    char message[MESSAGE];
    size_t length = 0;
    ssize_t n;
    char c;

    for (;;) {
        n = read(port, &c, 1);
        if (n <= 0) { /* libvirt is not connected, e.g. while the guest changes hosts */
            sleep_ms(20);
            length = 0;
        } else if (c == '\n') {
            message[length] = 0;
            if (length)
                handle(port, message);
            length = 0;
        } else if (length < sizeof message - 1 && (unsigned char)c != 0xff) {
            message[length++] = c;
        }
    }
}

/* ---- start ---- */

static void load_modules(void)
{
    char path[32];
    int fd;

    for (int number = 10; number < 100; number++) {
        snprintf(path, sizeof path, "/modules/%d", number);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return;
        syscall(SYS_finit_module, fd, "", 0);
        close(fd);
    }
}

static void start(void *(*body)(void *), long number)
{
    pthread_attr_t attributes;
    pthread_t thread;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    pthread_create(&thread, &attributes, body, (void *)number);
}

/* The kernel may have gathered little chance so early: the clocks are mixed in. */
static uint64_t new_boot_id(void)
{
    struct timespec t;
    uint64_t id = 0;

    if (getrandom(&id, sizeof id, GRND_INSECURE) != sizeof id)
        id = 0;
    clock_gettime(CLOCK_REALTIME, &t);
    return id ^ ((uint64_t)t.tv_sec << 32) ^ (uint64_t)t.tv_nsec ^ __builtin_ia32_rdtsc() << 20;
}

int main(void)
{
    int port;

    mount("proc", "/proc", "proc", 0, NULL);
    mount("sys", "/sys", "sysfs", 0, NULL);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    console = open("/dev/ttyS0", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    signal(SIGPIPE, SIG_IGN);
    load_threads = get_nprocs();
    read_command_line();
    load_modules();
    boot_id = new_boot_id();
    say("\nready %016llx\n", (unsigned long long)boot_id);
    start(count, 0);
    start(soil, 0);
    start(use_disk, 0);
    for (long i = 0; i < MAX_THREADS; i++)
        start(burn, i);
    while ((port = open_port()) < 0)
        sleep_ms(50);
    serve(port);
    return 0;
}
