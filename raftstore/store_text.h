/* SPDX-License-Identifier: Apache-2.0 */
/* libraft's codes in words: its own raft_strerror() knows only some of them. */
#pragma once

/* Static. */
const char *store_raft_text(int code);
