/* SPDX-License-Identifier: Apache-2.0 */
/* The client of fleetd's HTTP API: one request at a time over a kept connection, JSON both ways. Every
 * request has a deadline; every answer has a largest size; nothing is followed or asked of a proxy. Knows
 * nothing of units. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fleetctl/options.h"

#define API_REPLY_MAX (64 * 1024 * 1024) /* Bytes of one answer. */

struct api;

/* A client of the fleetd that the options say (endpoint, tunnel, certificates, request timeout); connects
 * when it is first used. 'o' is borrowed for as long as the client lives. -EINVAL and a text: they make no
 * sense. */
int api_new(const struct options *o, struct api **ret, struct err *err);
void api_free(struct api *api);
DEFINE_FREEP(struct api, api)

/* From now on api_call() returns -EINTR as soon as 'fd' is readable; -1: no longer. Borrowed. */
void api_set_interrupt(struct api *api, int fd);

/* Sends 'body' (or nothing: NULL) to 'path' below /fleet/v1/, already escaped, and waits for the answer for
 * the request timeout and 'extra_ms' more. *ret (which may be NULL) is the answer's object, NULL if
 * it has no body; the caller owns it. Texts are complete sentences for a person. Errors to be told apart:
 *
 *   -ENOENT       404: there is no such thing
 *   -EEXIST       409: the stored thing is not as the request assumed
 *   -EAGAIN       503: no leader, or the host belongs to no cluster
 *   -EINPROGRESS  504: the outcome is unknown; the request may be repeated
 *   -EINVAL       400 and other refusals
 *   -EIO          500 and other failures of the server
 *   -ENOTCONN     no answer: nobody there, or the connection broke
 *   -ETIMEDOUT    no answer in time
 *   -EBADMSG      the answer is not what the API promises
 *   -EINTR        api_set_interrupt() */
int api_call(struct api *api, const char *method, const char *path, const json_t *body, uint64_t extra_ms,
             json_t **ret, struct err *err);

/* 's' percent-encoded for a path or a query. The caller owns it. */
char *api_escape(const char *s);

/* The text at 'key' of 'object', or "" where there is none. Borrowed from 'object'. */
const char *api_text(const json_t *object, const char *key);
