/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/raftnet.h"

static int null_init(struct raft_uv_transport *transport, raft_id id, const char *address)
{
    return 0;
}

static int null_listen(struct raft_uv_transport *transport, raft_uv_accept_cb cb)
{
    return 0;
}

static int null_connect(struct raft_uv_transport *transport, struct raft_uv_connect *req, raft_id id,
                        const char *address, raft_uv_connect_cb cb)
{
    return RAFT_NOCONNECTION;
}

static void null_close(struct raft_uv_transport *transport, raft_uv_transport_close_cb cb)
{
    cb(transport);
}

void raftnet_null_transport(struct raft_uv_transport *transport)
{
    *transport = (struct raft_uv_transport){
        .init = null_init, .listen = null_listen, .connect = null_connect, .close = null_close};
    raft_compat_set_transport_version(transport);
}
