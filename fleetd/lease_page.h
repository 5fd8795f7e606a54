/* SPDX-License-Identifier: Apache-2.0 */
/* Where a host's lease is written down: one page of shared memory in a file, which fleetd writes and the
 * lease's keeper (lease_keeper.c) reads. It holds one number, the end of the lease on CLOCK_BOOTTIME: an
 * absolute time, so that it does not matter how long ago it was written, or how long its writer stood still
 * before it wrote. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define LEASE_PAGE_FILE "/run/fleet/lease"

struct lease_page;

/* 'write': made if it is missing, with a lease that has ended long ago. */
int lease_page_open(const char *path, bool write, struct lease_page **ret, struct err *err);
void lease_page_close(struct lease_page *page);

uint64_t lease_page_until_ms(const struct lease_page *page);

/* A lease that was granted holds: an earlier end than the present one changes nothing. */
void lease_page_prolong(struct lease_page *page, uint64_t until_ms);
