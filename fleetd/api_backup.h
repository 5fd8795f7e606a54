/* SPDX-License-Identifier: Apache-2.0 */
/* Backups that are being fetched: what api.c needs to know of them. */
#pragma once

#include <stdint.h>

struct api;

void api_backup_tick(struct api *api, uint64_t now_ms); /* Gives up those that nobody comes for. */
uint64_t api_backup_deadline_ms(const struct api *api); /* UINT64_MAX: never. */
void api_backup_end_all(struct api *api); /* Leadership ends: the registry is about to change. */
