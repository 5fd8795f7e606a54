/* SPDX-License-Identifier: Apache-2.0 */
/* What fleetd/cluster.c calls in functions that a test of others does not come to. Whoever comes here after
 * all ends the test. Without the headers, so that nothing has to be known of them but the names. */
#include <config.h>

#include <stdlib.h>

#define NEVER(function)  \
    void function(void); \
    void function(void)  \
    {                    \
        abort();         \
    }

NEVER(admission_check_key)
NEVER(admission_check_peer)
NEVER(admission_gate_new)
NEVER(admission_is_out)
NEVER(api_new)
NEVER(certifier_new)
NEVER(core_machine_leaves)
NEVER(core_new)
NEVER(core_registry_touched)
NEVER(credentials_forget_authority)
NEVER(daemon_fatal)
NEVER(daemon_update_status)
NEVER(downlink_accept)
NEVER(downlink_accept_removed)
NEVER(downlink_ask)
NEVER(downlink_ask_cancel)
NEVER(gate_accept)
NEVER(hosting_describe)
NEVER(hosting_report_all)
NEVER(hosting_uplink_new)
NEVER(leading_downlink_new)
NEVER(leading_prober_new)
NEVER(leading_set_placing)
NEVER(leading_start)
NEVER(leading_stop)
NEVER(lessor_new)
NEVER(member_is_superseded)
NEVER(member_save)
NEVER(member_supersede)
NEVER(membership_start)
NEVER(patience_free)
NEVER(patience_new)
NEVER(port_listen)
NEVER(port_new)
NEVER(port_set_identity)
NEVER(proving_check_server)
NEVER(proving_sign)
NEVER(renewal_apply)
NEVER(store_accept)
NEVER(store_barrier)
NEVER(store_check_room)
NEVER(store_directory_has_log)
NEVER(store_has_log)
NEVER(store_leader_address)
NEVER(store_leader_id)
NEVER(store_leads)
NEVER(store_open)
NEVER(store_propose)
NEVER(store_registry)
NEVER(store_role)
NEVER(store_term)
NEVER(uplink_leader)
NEVER(uplink_set_leader)
NEVER(voting_facts)
NEVER(voting_hand_over)
NEVER(voting_new)
