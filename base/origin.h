/* SPDX-License-Identifier: Apache-2.0 */
/* Where connections of strangers come from, as far as it counts when there are too many of them: who has one
 * IPv6 address usually has a whole /64 network of them, so such a network is one place, as an IPv4 address
 * is. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct origin {
    uint8_t network[8]; /* Of IPv6: the first 64 bits; of IPv4, also if it is mapped: the address. */
    uint8_t rest[8];    /* Of IPv6: the others. */
    bool v6;
};

/* Of an AF_INET or AF_INET6 address; anything else is one place of its own, "nowhere". */
struct origin origin_of(const struct sockaddr *from);

bool origin_same_network(const struct origin *a, const struct origin *b);
bool origin_same_address(const struct origin *a, const struct origin *b);

/* Which of these must go so that one more can come: of the network that has most of them, of the address that
 * has most of them in it, the first. So a crowd from one place keeps nobody else out, and within one network
 * nobody but itself. 'count' is not 0. */
size_t origin_of_crowd(const struct origin *origins, size_t count);
