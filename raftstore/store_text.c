/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/store_text.h"

#include <stddef.h>

#include <raft.h>

#include "base/cleanup.h"

static const char *const texts[] = {
    [RAFT_NOMEM] = "out of memory",
    [RAFT_BADID] = "no such server",
    [RAFT_DUPLICATEID] = "that server id is taken",
    [RAFT_DUPLICATEADDRESS] = "that address is taken",
    [RAFT_BADROLE] = "the server has that role already",
    [RAFT_MALFORMED] = "malformed data",
    [RAFT_NOTLEADER] = "this host does not lead (any more)",
    [RAFT_LEADERSHIPLOST] = "leadership was lost before it was committed",
    [RAFT_SHUTDOWN] = "shutting down",
    [RAFT_CANTBOOTSTRAP] = "the directory is not empty",
    [RAFT_CANTCHANGE] = "another change of the members is under way",
    [RAFT_CORRUPT] = "the log is damaged",
    [RAFT_CANCELED] = "canceled",
    [RAFT_NAMETOOLONG] = "the path is too long",
    [RAFT_TOOBIG] = "too big",
    [RAFT_NOCONNECTION] = "the server cannot be reached",
    [RAFT_BUSY] = "busy",
    [RAFT_IOERR] = "input/output error",
    [RAFT_NOTFOUND] = "not found",
    [RAFT_INVALID] = "invalid",
    [RAFT_UNAUTHORIZED] = "not allowed",
    [RAFT_NOSPACE] = "no space left on the disk",
    [RAFT_TOOMANY] = "a system limit was hit (fs.aio-max-nr?)",
};

const char *store_raft_text(int code)
{
    if (code < 0 || (size_t)code >= ARRAY_SIZE(texts) || texts[code] == NULL)
        return "unknown error of libraft";
    return texts[code];
}
