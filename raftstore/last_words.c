/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/last_words.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

static const int signals[] = {SIGABRT, SIGBUS, SIGSEGV};
static struct sigaction before[ARRAY_SIZE(signals)];
static char words[1024];

/* The old action takes effect when this has returned: what has happened happens again, or abort() sees to it
 * itself. */
static void on_signal(int number)
{
    if (write(STDERR_FILENO, words, strlen(words)) < 0)
        return;
}

void last_words_set(const char *text)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

    snprintf(words, sizeof words - 1, "%s", text);
    strcat(words, "\n");
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &action, &before[i]);
}

void last_words_clear(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &before[i], NULL);
}
