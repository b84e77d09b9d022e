/* LD_PRELOAD: writes beside each append-only file how many of its bytes are on disk for certain.
 *
 * After `kill -9` the kernel still holds what the server wrote and did not sync. To make a power cut of it, the file is
 * cut to the size noted in `<file>.synced`. The size is taken before the sync begins: what is written meanwhile does
 * not count.
 *
 *     gcc -shared -fPIC -O2 -o power_cut.so power_cut.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(int fd, long long size)
{
    char link[64], path[PATH_MAX], beside[PATH_MAX + 8];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return;
    path[length] = 0;
    if (!strstr(path, ".incr.aof"))
        return;
    snprintf(beside, sizeof beside, "%s.synced", path);
    int out = open(beside, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (out < 0)
        return;
    char text[32];
    /* one write of a fixed width: a reader after a kill never sees half a number */
    int n = snprintf(text, sizeof text, "%020lld\n", size);
    if (pwrite(out, text, n, 0) != n)
        unlink(beside);
    close(out);
}

static int synced(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    struct stat before;
    int known = fstat(fd, &before);
    int result = real(fd);
    if (result == 0 && known == 0)
        note(fd, (long long)before.st_size);
    return result;
}

int fdatasync(int fd) { return synced("fdatasync", fd); }
int fsync(int fd) { return synced("fsync", fd); }
