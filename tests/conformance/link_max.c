/* Preloaded into pjdfstest on ringfs: answers pathconf(_PC_LINK_MAX), which the C library takes from a list of file systems it
 * knows and FUSE is not on, with the limit in LINK_MAX. Without it the test of that limit skips itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

long pathconf(const char *path, int name)
{
    static long (*next)(const char *, int);
    const char *limit = getenv("LINK_MAX");

    if (name == _PC_LINK_MAX && limit)
        return atol(limit);
    if (!next)
        next = (long (*)(const char *, int))dlsym(RTLD_NEXT, "pathconf");
    return next(path, name);
}
