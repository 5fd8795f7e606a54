/* SPDX-License-Identifier: Apache-2.0 */
/* Sends what a command changes: POST /units, one transaction. What does not fit one request goes in several,
 * after all of them were tried with dryRun, so that what the server can refuse it refuses before anything is
 * changed. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "fleetctl/api.h"

#define CHANGE_UNITS_MAX 1000         /* Of one request... */
#define CHANGE_BYTES_MAX (900 * 1024) /* ...and its text. */
#define CHANGE_TRIES_MAX 4

/* 'units': the array of changes as the API has them; none is fine. Adds name -> generation to 'generations'
 * (an object). Errors as api_call(). */
int change_post(struct api *api, const json_t *units, json_t *generations, struct err *err);

/* Whether a command should look again at what is stored and plan anew, after its try number 'try' (from 1)
 * failed with 'r': somebody else changed the same units meanwhile, or the outcome is unknown. Waits a moment
 * if so. */
bool change_try_again(int r, unsigned try);
