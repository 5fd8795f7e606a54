/* SPDX-License-Identifier: Apache-2.0 */
/* The text of an error, for a person. It is set once, where the cause is known, and prefixed by each layer
 * that adds context ("unit web@1.service: line 7: ..."). The code that programs act on is the negative errno
 * that is returned beside it. A NULL 'err' is allowed everywhere: then only the code counts. */
#pragma once

#define ERR_TEXT_MAX 1024

struct err {
    char text[ERR_TEXT_MAX]; /* Empty: nothing was said. Longer texts are cut with "...". */
};

/* Sets the text and returns 'code', a negative errno. */
int err_set(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "<formatted>: " before the text and returns 'code'. */
int err_prefix(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The text, or strerror(-code) where none was set. Never NULL; valid as long as 'err'. */
const char *err_text(const struct err *err, int code);
