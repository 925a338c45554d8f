/*
 * Preloaded into a host's libvirtd and its QEMUs: a clock of the host's own, which is off by as many
 * seconds as /run/clock says. The kernel has but one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>

#define SINCE_BOOT 1000000000L

static long offset(void)
{
    static long seconds;
    static int known;
    FILE *file;

    if (known)
        return seconds;
    if ((file = fopen("/run/clock", "r"))) {
        if (fscanf(file, "%ld", &seconds) != 1)
            seconds = 0;
        fclose(file);
    }
    known = 1; /* for good: an emulated machine asks for the time hundreds of times a second */
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *answer)
{
    static int (*function)(clockid_t, struct timespec *);
    int result;

    if (!function)
        function = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    result = function(clock, answer);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        answer->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict answer, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    answer->tv_sec = now.tv_sec;
    answer->tv_usec = now.tv_nsec / 1000;
    return 0;
}

/* Who waits until a time of its own clock would wait for longer, or not at all. Times since boot are
 * small numbers, and stay. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    static int (*function)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec real = *until;

    if (!function)
        function = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))
            dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (real.tv_sec > SINCE_BOOT)
        real.tv_sec -= offset();
    return function(condition, mutex, &real);
}

time_t time(time_t *answer)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (answer)
        *answer = now.tv_sec;
    return now.tv_sec;
}
