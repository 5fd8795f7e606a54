/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/agent_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "units/name.h"
#include "units/requirements.h"

#define TEMPORARY_PREFIX ".fleet-"

static int make_directories(const char *path)
{
    _cleanup_(freep) char *part = xstrdup(path);
    int r;

    for (char *p = part + 1; *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        r = file_make_directory(part);
        if (r < 0)
            return r;
        *p = '/';
    }
    return file_make_directory(part);
}

int agent_files_open(const char *directory, int *ret, struct err *err)
{
    int r, fd;

    r = make_directories(directory);
    if (r < 0)
        return err_set(err, r, "cannot make the units directory %s: %s", directory, strerror(-r));
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -errno, "cannot open the units directory %s: %s", directory, strerror(errno));
    *ret = fd;
    return 0;
}

static int read_all(int fd, char *text, size_t limit, size_t *ret_size)
{
    size_t size = 0;

    while (size < limit) {
        ssize_t n = read(fd, text + size, limit - size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        size += (size_t)n;
    }
    *ret_size = size;
    return 0;
}

/* *ret_text has UNIT_FILE_SIZE_MAX bytes at most. -EBADF: no regular file, or too big: not one of ours. */
static int read_file(int directory, const char *name, char **ret_text, size_t *ret_size)
{
    _cleanup_(closep) int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    _cleanup_(freep) char *text = NULL;
    struct stat st;
    size_t size = 0;
    int r;

    if (fd < 0)
        return errno == ELOOP ? -EBADF : -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size > UNIT_FILE_SIZE_MAX)
        return -EBADF;
    text = xmalloc((size_t)st.st_size + 1);
    r = read_all(fd, text, (size_t)st.st_size, &size);
    if (r < 0)
        return r;
    *ret_text = TAKE_PTR(text);
    *ret_size = size;
    return 0;
}

static bool enables(const struct unit_option *option)
{
    static const char *const names[] = {"Alias", "Also", "RequiredBy", "UpheldBy", "WantedBy"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (streq(option->name, names[i]))
            return option->value[0] != '\0';
    return false;
}

enum agent_install agent_files_install(const char *text, size_t size)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    enum agent_install install = AGENT_INSTALL_NONE;

    if (unit_file_parse(text, size, &file, NULL) < 0)
        return install; /* systemd will say what is wrong with it. */
    for (size_t i = 0; i < file->count; i++) {
        if (!streq(file->options[i].section, "Install"))
            continue;
        if (enables(&file->options[i]))
            return AGENT_INSTALL_SOME;
        install = AGENT_INSTALL_EMPTY;
    }
    return install;
}

bool agent_files_mean_the_same(int fd, const char *name, const char *text, size_t size)
{
    _cleanup_(unit_file_freep) struct unit_file *old = NULL, *new = NULL;
    _cleanup_(freep) char *old_text = NULL;
    size_t old_size;

    return read_file(fd, name, &old_text, &old_size) >= 0 &&
           unit_file_parse(old_text, old_size, &old, NULL) >= 0 &&
           unit_file_parse(text, size, &new, NULL) >= 0 && requirements_are_all_that_differs(old, new);
}

bool agent_files_is(int fd, const char *name, const char *path)
{
    struct stat ours, theirs;

    return fstatat(fd, name, &ours, 0) == 0 && stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
           ours.st_ino == theirs.st_ino;
}

static bool is_our_name(const char *name)
{
    return unit_name_check(name, NULL) >= 0 && !unit_name_is_template(name);
}

int agent_files_scan(int fd, const char *directory,
                     void (*each)(const char *name, const char *hash, enum agent_install install, void *data),
                     void *data, struct err *err)
{
    _cleanup_(closep) int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(closedirp) DIR *dir = own < 0 ? NULL : fdopendir(own);
    _cleanup_(freep) char *first = NULL;
    size_t foreign = 0;
    struct dirent *entry;

    if (dir == NULL)
        return err_set(err, -errno, "cannot read the units directory %s: %s", directory, strerror(errno));
    own = -1; /* The stream's now. */
    while (errno = 0, (entry = readdir(dir)) != NULL) {
        _cleanup_(freep) char *text = NULL;
        char hash[UNIT_HASH_SIZE];
        size_t size = 0;

        if (streq(entry->d_name, ".") || streq(entry->d_name, ".."))
            continue;
        if (str_has_prefix(entry->d_name, TEMPORARY_PREFIX)) {
            unlinkat(fd, entry->d_name, 0);
        } else if (is_our_name(entry->d_name) && read_file(fd, entry->d_name, &text, &size) >= 0) {
            unit_hash(text, size, hash);
            each(entry->d_name, hash, agent_files_install(text, size), data);
        } else if (foreign++ == 0) {
            first = xstrdup(entry->d_name);
        }
    }
    if (errno != 0)
        return err_set(err, -errno, "cannot read the units directory %s: %s", directory, strerror(errno));
    if (foreign > 0)
        log_warn("%s: %zu entries are no unit files (such as '%s'), they are left alone", directory, foreign,
                 first);
    return 0;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

static int set_time(int directory, const char *name, int fd, bool keep_time)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
    struct stat old, new;

    if (fstatat(directory, name, &old, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (fstat(fd, &new) < 0)
        return -errno;
    if (!keep_time && is_later(&new.st_mtim, &old.st_mtim))
        return 0;
    times[1] = old.st_mtim;
    times[1].tv_nsec += keep_time ? 0 : 1000000;
    if (times[1].tv_nsec >= 1000000000) {
        times[1].tv_sec++;
        times[1].tv_nsec -= 1000000000;
    }
    return futimens(fd, times) < 0 ? -errno : 0;
}

static int write_renamed(int directory, const char *name, const char *temporary, const char *text,
                         size_t size, bool keep_time)
{
    _cleanup_(closep) int fd =
        openat(directory, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    int r;

    if (fd < 0)
        return -errno;
    r = fchmod(fd, 0644) < 0 ? -errno : file_write_all(fd, text, size);
    if (r >= 0)
        r = set_time(directory, name, fd, keep_time);
    if (r < 0)
        return r;
    return renameat(directory, temporary, directory, name) < 0 ? -errno : 0;
}

int agent_files_write(int fd, const char *name, const char *text, size_t size, bool keep_time,
                      struct err *err)
{
    /* Not derived from the name, which may be as long as a file name can be. */
    static const char temporary[] = TEMPORARY_PREFIX "new";
    int r;

    r = write_renamed(fd, name, temporary, text, size, keep_time);
    if (r < 0) {
        unlinkat(fd, temporary, 0);
        return err_set(err, r, "cannot write the unit file: %s", strerror(-r));
    }
    return 0;
}

int agent_files_remove(int fd, const char *name, struct err *err)
{
    if (unlinkat(fd, name, 0) < 0 && errno != ENOENT)
        return err_set(err, -errno, "cannot remove the unit file: %s", strerror(errno));
    return 0;
}

static bool leads_to(int directory, const char *link, const char *path)
{
    char target[PATH_MAX];
    ssize_t size = readlinkat(directory, link, target, sizeof target - 1);

    if (size < 0)
        return false;
    target[size] = '\0';
    return streq(target, path);
}

static bool holds_links(const char *directory)
{
    return str_has_suffix(directory, ".wants") || str_has_suffix(directory, ".requires") ||
           str_has_suffix(directory, ".upholds");
}

void agent_files_unlink(const char *links, const char *directory, const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", directory, name),
                          *link = xasprintf("%s/%s", links, name);
    _cleanup_(closedirp) DIR *dir = NULL;
    struct dirent *entry;

    if (!leads_to(AT_FDCWD, link, path))
        return; /* The usual case: systemd has removed it, and the others with it. */
    dir = opendir(links);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        _cleanup_(freep) char *inner = xasprintf("%s/%s", entry->d_name, name);

        if (leads_to(dirfd(dir), entry->d_name, path))
            unlinkat(dirfd(dir), entry->d_name, 0);
        else if (holds_links(entry->d_name) && leads_to(dirfd(dir), inner, path))
            unlinkat(dirfd(dir), inner, 0);
    }
}
