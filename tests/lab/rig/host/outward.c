/*
 * Preloaded into a host's libvirtd: how the machine looks from inside, where a file cannot say it.
 *
 * Shared storage: libvirt takes a migration for unsafe unless the disk's filesystem is a network
 * one, which it learns with statfs(). The lab's shared directory is local to the one real machine
 * but shared by all lab hosts, so it may truthfully answer like NFS.
 *
 * Memory: libvirt reports the host's memory from sysconf(), which asks the real kernel.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SHARED "/lab/shared"
#define NFS_MAGIC 0x6969

static long memory_bytes;

/* Other libraries' constructors call these functions before ours has run: looked up when needed. */
static int real_statfs(const char *path, struct statfs *answer)
{
    static int (*function)(const char *, struct statfs *);

    if (!function)
        function = (int (*)(const char *, struct statfs *))dlsym(RTLD_NEXT, "statfs");
    return function(path, answer);
}

static long real_sysconf(int name)
{
    static long (*function)(int);

    if (!function)
        function = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    return function(name);
}

__attribute__((constructor)) static void start(void)
{
    const char *text = getenv("LAB_MEMORY_BYTES");

    memory_bytes = text ? atol(text) : 0;
    /* QEMU is to see the truth, but for the host's clock */
    if (getenv("LAB_CLOCK"))
        setenv("LD_PRELOAD", getenv("LAB_CLOCK"), 1);
    unsetenv("LAB_CLOCK");
    unsetenv("LAB_MEMORY_BYTES");
}

static int is_shared(const char *path)
{
    size_t length = strlen(SHARED);

    return strncmp(path, SHARED, length) == 0 && (path[length] == '/' || path[length] == 0);
}

int statfs(const char *path, struct statfs *answer)
{
    int result = real_statfs(path, answer);

    if (result == 0 && is_shared(path))
        answer->f_type = NFS_MAGIC;
    return result;
}

int statfs64(const char *path, struct statfs64 *answer)
{
    return statfs(path, (struct statfs *)answer); /* one layout on 64-bit machines */
}

long sysconf(int name)
{
    if (name == _SC_PHYS_PAGES && memory_bytes > 0)
        return memory_bytes / real_sysconf(_SC_PAGESIZE);
    return real_sysconf(name);
}
