/* SPDX-License-Identifier: Apache-2.0 */
/* Feeds a fuzz target with every file of its corpus: in CORPUS (relative to the build directory, where tests
 * run) or in the directories and files given. An input that once failed is kept there for ever. */
#include <config.h>

#include <errno.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_SIZE_MAX (1024 * 1024)

static int replay_file(const char *path)
{
    _cleanup_(fclosep) FILE *f = fopen(path, "re");
    _cleanup_(freep) uint8_t *all = xmalloc(INPUT_SIZE_MAX);
    _cleanup_(freep) uint8_t *exact = NULL;
    size_t size;

    if (f == NULL)
        return -errno;
    size = fread(all, 1, INPUT_SIZE_MAX, f);
    if (ferror(f))
        return -EIO;
    exact = xmemdup(all, size); /* So that reading one byte too many is noticed. */
    LLVMFuzzerTestOneInput(exact, size);
    return 1;
}

/* Returns the number of files. */
static int replay(const char *path)
{
    _cleanup_(closedirp) DIR *dir = opendir(path);
    struct dirent *entry;
    int count = 0, r;

    if (dir == NULL)
        return errno == ENOTDIR ? replay_file(path) : -errno;
    while ((entry = readdir(dir)) != NULL) {
        _cleanup_(freep) char *file = xasprintf("%s/%s", path, entry->d_name);

        if (entry->d_name[0] == '.')
            continue;
        r = replay_file(file);
        if (r < 0)
            return r;
        count += r;
    }
    return count;
}

int main(int argc, char **argv)
{
    static char corpus[] = CORPUS;
    char *defaults[] = {corpus}, **paths = argc > 1 ? argv + 1 : defaults;
    int count = argc > 1 ? argc - 1 : 1, r;

    for (int i = 0; i < count; i++) {
        r = replay(paths[i]);
        printf("%s: %d\n", paths[i], r);
        if (r <= 0)
            return 1;
    }
    return 0;
}
