/* Preloaded into fsx: opens the one file named by O_DIRECT_FILE with O_DIRECT, which fsx itself has no option for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int open64(const char *path, int flags, ...)
{
    static int (*next)(const char *, int, ...);
    const char *only = getenv("O_DIRECT_FILE");
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list list;
        va_start(list, flags);
        mode = va_arg(list, mode_t);
        va_end(list);
    }
    if (!next)
        next = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    if (only && strcmp(only, path) == 0)
        flags |= O_DIRECT;
    return next(path, flags, mode);
}
