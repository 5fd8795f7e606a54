/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "base/hex.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void id_to_hex(const uint8_t *id, size_t size, char *hex)
{
    for (size_t i = 0; i < size; i++)
        sprintf(hex + 2 * i, "%02x", id[i]);
}

bool id_from_hex(const char *hex, uint8_t *id, size_t size)
{
    if (strlen(hex) != 2 * size || strspn(hex, "0123456789abcdef") != 2 * size)
        return false;
    for (size_t i = 0; i < size; i++)
        sscanf(hex + 2 * i, "%2" SCNx8, &id[i]);
    return true;
}
