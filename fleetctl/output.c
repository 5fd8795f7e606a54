/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"

#define TAB_WIDTH 8

static void blank_controls(char *text)
{
    for (char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
}

void table_add(struct table *t, const char *cell)
{
    char *copy = xstrdup(cell);

    blank_controls(copy);
    strlist_take(&t->cells, copy);
}

/* Characters, not bytes. Cells come from JSON, which is valid UTF-8: all but continuation bytes count. */
static size_t cell_size(const char *cell)
{
    size_t count = 0;

    for (; *cell != '\0'; cell++)
        count += (*cell & 0xc0) != 0x80;
    return count;
}

static size_t column_width(const struct table *t, size_t column)
{
    size_t longest = 0;

    for (size_t i = column; i < t->cells.count; i += t->column_count) {
        size_t size = cell_size(t->cells.items[i]);

        if (size > longest)
            longest = size;
    }
    return (longest + 1 + TAB_WIDTH - 1) / TAB_WIDTH * TAB_WIDTH;
}

char *table_render(const struct table *t)
{
    size_t *widths = xcalloc(t->column_count + 1, sizeof *widths);
    struct strbuf b = {0};

    for (size_t c = 0; c < t->column_count; c++)
        widths[c] = column_width(t, c);
    for (size_t i = 0; i < t->cells.count; i++) {
        const size_t column = i % t->column_count;
        const char *cell = t->cells.items[i];

        strbuf_add(&b, cell);
        if (column + 1 == t->column_count) {
            strbuf_add(&b, "\n");
            continue;
        }
        for (size_t at = cell_size(cell); at < widths[column]; at = (at / TAB_WIDTH + 1) * TAB_WIDTH)
            strbuf_add(&b, "\t");
    }
    free(widths);
    return strbuf_take(&b);
}

void table_done(struct table *t)
{
    strlist_done(&t->cells);
}

void print_wrapped(const char *text, size_t at, size_t indent)
{
    while (*text != '\0') {
        const size_t blank = *text == ' ', size = blank + strcspn(text + blank, " \n");

        if (*text == '\n' || (blank > 0 && at + size > OUTPUT_WIDTH)) {
            printf("\n\t%*s", (int)(indent - TAB_WIDTH), "");
            at = indent;
            text++; /* The newline, or the blank that would have been there. */
            continue;
        }
        printf("%.*s", (int)size, text);
        at += size;
        text += size;
    }
    putchar('\n');
}

void complain(const char *format, ...)
{
    _cleanup_(freep) char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = xvasprintf(format, ap);
    va_end(ap);
    blank_controls(text);
    fflush(stdout); /* What happened before stands before it, where both go to one place. */
    fprintf(stderr, "%s\n", text);
}

void output_prepare(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            /* open() takes the lowest free number, which is 'fd'. Opened for reading, it refuses writes. */
            int r = open("/dev/null", fd == 1 ? O_RDONLY : O_RDWR);

            if (r < 0)
                _exit(EXIT_FAILURE);
        }
}

bool output_finish(void)
{
    bool failed = ferror(stdout) != 0;

    errno = 0;
    if (fflush(stdout) != 0 || fclose(stdout) != 0)
        failed = true;
    if (!failed)
        return true;
    fprintf(stderr, "cannot write to stdout: %s\n", errno != 0 ? strerror(errno) : "write error");
    return false;
}
