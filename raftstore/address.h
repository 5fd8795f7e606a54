/* SPDX-License-Identifier: Apache-2.0 */
/* "host:port" as people and configurations write it. Pure: nothing is resolved here.
 *
 *      host   host:port   192.0.2.1:7390   [2001:db8::1]:7390   [2001:db8::1]   2001:db8::1   :7390 */
#pragma once

#include "base/err.h"

#define ADDRESS_PORT_DEFAULT 7390
#define ADDRESS_HOST_MAX     255u

struct address {
    char host[ADDRESS_HOST_MAX + 1]; /* Without brackets; empty: any. */
    int port;                        /* 0 only where it was written: the kernel chooses. */
};

/* -EINVAL with a text: no address. */
int address_parse(const char *text, struct address *ret, struct err *err);
