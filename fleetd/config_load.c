/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "fleetd/config.h"
#include "fleetd/config_text.h"

/* ---- one source after the other ---- */

struct loader {
    struct config *config;
    struct strlist old_seen; /* Keys of the first fleet that were warned about. */
    const char *file;        /* Or the environment variable. */
    unsigned mistakes;
    char *first_mistake;
};

__attribute__((format(printf, 3, 4))) static char *warn(const struct loader *l, unsigned line,
                                                        const char *format, ...)
{
    _cleanup_(freep) char *text = NULL;
    char *whole;
    va_list ap;

    va_start(ap, format);
    text = xvasprintf(format, ap);
    va_end(ap);
    whole = line > 0 ? xasprintf("%s:%u: %s", l->file, line, text) : xasprintf("%s: %s", l->file, text);
    log_warn("%s: ignored", whole);
    return whole;
}

static void note_mistake(struct loader *l, char *text)
{
    if (l->mistakes++ == 0)
        l->first_mistake = text;
    else
        free(text);
}

static bool is_old_key(const char *name)
{
    for (size_t i = 0; config_old_key(i) != NULL; i++)
        if (streq(config_old_key(i), name))
            return true;
    return false;
}

static void warn_old_key(struct loader *l, unsigned line, const char *name)
{
    if (strlist_has(&l->old_seen, name))
        return;
    free(warn(l, line, "%s has no meaning any more (fleet needs no etcd; see fleet.conf(5))", name));
    strlist_add(&l->old_seen, name);
}

static void set_named(struct loader *l, unsigned line, const char *name, const char *value)
{
    struct err err = {0};
    int r;

    if (is_old_key(name)) {
        warn_old_key(l, line, name);
        return;
    }
    r = config_set(l->config, name, value, &err);
    if (r == -ENOENT)
        free(warn(l, line, "%s", err_text(&err, r)));
    else if (r < 0)
        note_mistake(l, warn(l, line, "%s: %s", name, err_text(&err, r)));
}

static void on_pair(unsigned line, const char *section, const char *key, const char *value, void *data)
{
    struct loader *l = data;

    if (*section != '\0')
        free(warn(l, line, "\"%s\" is in the section [%s], only keys outside any section count", key,
                  section));
    else
        set_named(l, line, key, value);
}

static void on_mistake(unsigned line, const char *what, void *data)
{
    note_mistake(data, warn(data, line, "%s", what));
}

/* -ENOENT and -EISDIR are told apart by the caller. */
static int read_text(const char *path, char **ret, size_t *ret_size, struct err *err)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    _cleanup_(freep) char *text = NULL;
    size_t size = 0;
    struct stat st;
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(err, -errno, "cannot read %s: %m", path);
    if (S_ISDIR(st.st_mode))
        return err_set(err, -EISDIR, "%s is a directory, not a file", path);
    text = xmalloc(CONFIG_FILE_MAX + 2);
    while (size <= CONFIG_FILE_MAX && (n = read(fd, text + size, CONFIG_FILE_MAX + 1 - size)) != 0) {
        if (n < 0)
            return err_set(err, -errno, "cannot read %s: %m", path);
        size += (size_t)n;
    }
    if (size > CONFIG_FILE_MAX)
        return err_set(err, -EFBIG, "%s is larger than %u bytes", path, CONFIG_FILE_MAX);
    text[size] = '\0';
    *ret = TAKE_PTR(text);
    *ret_size = size;
    return 0;
}

static int load_file(struct loader *l, const char *path, struct err *err)
{
    static const struct config_text_callbacks callbacks = {.on_pair = on_pair, .on_mistake = on_mistake};
    _cleanup_(freep) char *text = NULL;
    size_t size = 0;
    int r = read_text(path, &text, &size, err);

    if (r < 0)
        return r;
    l->file = path;
    config_text_parse(text, size, &callbacks, l);
    return 0;
}

/* ---- all of it ---- */

static int is_conf(const struct dirent *entry)
{
    return str_has_suffix(entry->d_name, ".conf") && entry->d_name[0] != '.';
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* Bytewise, whatever the locale is. */
}

/* One that cannot be read is no reason to stop: nobody named it. */
static void load_dropin(struct loader *l, const char *path)
{
    struct err err = {0};
    int r = load_file(l, path, &err);

    if (r < 0) {
        log_warn("%s: ignored", err_text(&err, r));
        note_mistake(l, xstrdup(err_text(&err, r)));
    }
}

static void load_dropins(struct loader *l, const char *file)
{
    _cleanup_(freep) char *dir = xasprintf("%s.d", file);
    struct dirent **names = NULL;
    int count = scandir(dir, &names, is_conf, compare_names);

    if (count < 0 && errno != ENOENT) {
        note_mistake(l, xasprintf("cannot read %s: %m", dir));
        log_warn("cannot read %s: %m: ignored", dir);
    }
    for (int i = 0; i < count; i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", dir, names[i]->d_name);

        if (i < (int)CONFIG_DROPINS_MAX)
            load_dropin(l, path);
        else if (i == (int)CONFIG_DROPINS_MAX)
            log_warn("%s: more than %u files: the rest is ignored", dir, CONFIG_DROPINS_MAX);
        free(names[i]);
    }
    free(names);
}

static void load_variable(struct loader *l, const char *name)
{
    _cleanup_(freep) char *variable = xasprintf("FLEET_%s", name);
    const char *value;

    for (char *p = variable; *p != '\0'; p++)
        *p = (char)toupper((unsigned char)*p);
    value = getenv(variable); /* Counts also when empty. */
    l->file = variable;
    if (value != NULL)
        set_named(l, 0, name, value);
}

static int load(const char *file, struct config *ret, bool strict, struct err *err)
{
    struct config config;
    struct loader loader = {.config = &config};
    int r;

    config_init(&config);
    r = load_file(&loader, file != NULL ? file : CONFIG_FILE_DEFAULT, err);
    if (r == -ENOENT && file == NULL) {
        log_info("No provided or default config file found - proceeding without");
        r = 0;
    }
    if (r >= 0)
        load_dropins(&loader, file != NULL ? file : CONFIG_FILE_DEFAULT);
    /* Those of the environment do not count: nobody can mend it while fleetd runs. */
    if (r >= 0 && strict && loader.mistakes > 0)
        r = err_set(err, -EBADMSG, "%s%s", loader.first_mistake,
                    loader.mistakes > 1 ? " (and more, see above)" : "");
    for (size_t i = 0; r >= 0 && config_key(i) != NULL; i++)
        load_variable(&loader, config_key(i)->name);
    for (size_t i = 0; r >= 0 && config_old_key(i) != NULL; i++)
        load_variable(&loader, config_old_key(i));
    strlist_done(&loader.old_seen);
    free(loader.first_mistake);
    if (r < 0) {
        config_done(&config);
        return err_prefix(err, r, "unable to use the configuration");
    }
    *ret = config;
    return 0;
}

int config_load(const char *file, struct config *ret, struct err *err)
{
    return load(file, ret, false, err);
}

int config_load_strict(const char *file, struct config *ret, struct err *err)
{
    return load(file, ret, true, err);
}
