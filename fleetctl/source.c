/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/source.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "units/requirements.h"

void source_free(struct source *s)
{
    if (s == NULL)
        return;
    unit_file_free(s->file);
    free(s->path);
    free(s);
}

/* A byte more than the limit is read, so that a file beyond it is seen as such; never more, whatever it is.
 */
static int read_text(const char *path, char **ret, size_t *ret_size, struct err *err)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* A FIFO would wait. */
    _cleanup_(fclosep) FILE *f = NULL;
    _cleanup_(freep) char *text = NULL;
    size_t size;

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return -ENOENT;
    if (fd < 0 || (f = fdopen(fd, "r")) == NULL)
        return err_set(err, -EIO, "%s", strerror(errno));
    (void)TAKE_FD(fd); /* It is f's. */
    text = xmalloc(UNIT_FILE_SIZE_MAX + 1);
    size = fread(text, 1, UNIT_FILE_SIZE_MAX + 1, f);
    if (ferror(f))
        return err_set(err, -EIO, "%s", strerror(errno));
    *ret = TAKE_PTR(text);
    *ret_size = size;
    return 0;
}

/* The API speaks JSON, which can carry nothing else. */
static int check_utf8(const struct unit_file *file, struct err *err)
{
    for (size_t i = 0; i < file->count; i++) {
        const struct unit_option *option = &file->options[i];
        _cleanup_(json_decrefp) json_t *packed =
            json_pack("[sss]", option->section, option->name, option->value);

        if (packed == NULL)
            return err_set(err, -EINVAL, "the option \"%s\" of section \"%s\" is not valid UTF-8",
                           option->name, option->section);
    }
    return 0;
}

int source_check(const struct source *s, struct err *err)
{
    const struct unit_file *file = s->file;
    _cleanup_(requirements_freep) struct requirements *requirements = NULL;
    int r;

    if (file->count == 0)
        return err_set(err, -EINVAL, "there is no option in it: this is no unit file");
    r = unit_file_check(file, err);
    if (r == 0)
        r = check_utf8(file, err);
    if (r < 0)
        return r;
    requirements = requirements_new(file, NULL);
    return requirements_check(requirements, err);
}

int source_read(const char *path, struct source **ret, struct err *err)
{
    _cleanup_(source_freep) struct source *s = NULL;
    _cleanup_(freep) char *text = NULL, *stored = NULL;
    size_t size;
    int r;

    r = read_text(path, &text, &size, err);
    if (r < 0)
        return r;
    s = NEW0(struct source);
    s->path = xstrdup(path);
    r = unit_file_parse(text, size, &s->file, err);
    if (r < 0)
        return r;
    stored = unit_file_serialize(s->file, &size);
    unit_hash(stored, size, s->hash);
    *ret = TAKE_PTR(s);
    return 0;
}

char *source_template_path(const char *path, const char *template_name)
{
    const char *slash = strrchr(path, '/');

    return xasprintf("%.*s%s", slash != NULL ? (int)(slash + 1 - path) : 0, path, template_name);
}
