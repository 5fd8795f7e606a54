/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void mark_cut(char *text, int needed)
{
    if (needed >= ERR_TEXT_MAX)
        memcpy(text + ERR_TEXT_MAX - 4, "...", 4);
}

int err_set(struct err *err, int code, const char *format, ...)
{
    va_list ap;

    if (err == NULL)
        return code;
    va_start(ap, format);
    mark_cut(err->text, vsnprintf(err->text, sizeof err->text, format, ap));
    va_end(ap);
    return code;
}

int err_prefix(struct err *err, int code, const char *format, ...)
{
    char old[ERR_TEXT_MAX];
    va_list ap;
    int n;

    if (err == NULL)
        return code;
    snprintf(old, sizeof old, "%s", err_text(err, code));
    va_start(ap, format);
    n = vsnprintf(err->text, sizeof err->text, format, ap);
    va_end(ap);
    if (n < ERR_TEXT_MAX)
        n += snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    mark_cut(err->text, n);
    return code;
}

const char *err_text(const struct err *err, int code)
{
    return err != NULL && err->text[0] != '\0' ? err->text : strerror(-code);
}
