/* SPDX-License-Identifier: Apache-2.0 */
/* Every limit on what comes from disk, wire or a user, in one place: named, checked before anything is
 * allocated, and refused with a message that names it (design promise 10). */
#pragma once

#define FRAME_MAX                    (4u * 1024 * 1024) /* Bytes of one frame between daemons. */
#define HELLO_FRAME_MAX              4096u              /* Bytes of a frame before the peer is known. */
#define JOIN_FRAME_MAX               (512u * 1024) /* Bytes of a request to join: of who has proved nothing yet. */
#define COMMAND_MAX                  (1u * 1024 * 1024) /* Bytes of one encoded command: one Raft entry. */
#define SNAPSHOT_MAX                 (1024u * 1024 * 1024)
#define RAFT_ENTRIES_PER_MESSAGE_MAX 1024u
#define RAFT_SERVERS_MAX             64u /* In one Raft configuration. */
#define PROPOSALS_IN_FLIGHT_MAX      64u
#define PROPOSALS_QUEUED_MAX         4096u
#define CONN_QUEUE_MAX               (16u * 1024 * 1024) /* Bytes that wait for a slow peer before it is cut off. */
#define HANDSHAKES_MAX               64u                 /* Connections whose peer is not known yet. */
#define TLS_HANDSHAKES_MAX           128u                /* TLS handshakes under way in one thread. */
#define ADDRESS_MAX                  261u /* Bytes of "host:port": a DNS name of 255, a colon, five digits. */
#define CHANGES_PER_COMMAND_MAX      2000u
#define MACHINES_MAX                 2000u
#define UNITS_MAX                    50000u
#define LABELS_PER_MACHINE_MAX       128u
#define LABEL_MAX                    1024u /* Bytes of a metadata key or value. */
#define SETTING_NAME_MAX             64u   /* Bytes of the name of a setting of the cluster. */
#define SETTING_VALUE_MAX            1024u /* Bytes of its value. */
#define SETTINGS_MAX                 64u   /* That are set. */
#define REQUESTS_REMEMBERED_MAX      4096u /* Whose repetition the registry still recognises. */
#define DEPARTED_REMEMBERED_MAX      4096u /* Destroyed units whose machines the registry still knows. */
#define API_HEAD_MAX                 (256u * 1024) /* Path, query and so on of a request, encoded. */
#define API_BODY_MAX                 (FRAME_MAX - API_HEAD_MAX) /* A request goes to the leader in one frame. */
#define COMMAND_STAMP_MAX            24u     /* Bytes that the store adds to a command: term and time. */
#define API_JSON_VALUES_MAX          500000u /* Values in one body. */
#define API_OPEN_MAX                 4096u   /* Requests that wait for their answer. */
#define API_PAGE_SIZE_MAX            (1u * 1024 * 1024) /* Bytes after which a page ends: an answer fits a frame. */
#define API_BACKUPS_MAX              4u                 /* That are being fetched at the same time... */
#define API_BACKUP_IDLE_MS           30000u /* ...and are given up when nobody has asked for more for so long. */
#define API_BACKUP_PIECE_MAX         (768u * 1024) /* Bytes of one piece of a backup, before it is text. */
#define API_WAIT_MS_MAX              60000u
#define API_WAITED_UNITS_MAX         200000u       /* In all requests that wait. */
#define HOST_ANSWER_MAX              (256u * 1024) /* Bytes of a host's answer to one question of the leader. */
#define HOST_QUESTIONS_MAX           32u  /* That one host works on; their answers fit CONN_QUEUE_MAX. */
#define HOST_CURSOR_MAX              512u /* Bytes of a place in a journal. */
#define API_HOSTS_ASKED_MAX          64u  /* Hosts asked for one request: their answers fit a frame. */
#define API_HOSTS_ASKED_BYTES_MAX    (2u * 1024 * 1024) /* What they may answer together. */
#define API_JOURNAL_LINES_MAX        10000u
#define API_JOURNAL_WAIT_MS_MAX      30000u
#define API_WAIT_MACHINES_MAX        4096u /* Machines listed in one answer to a wait. */
#define AUTHORITY_MAX                8192u /* Bytes of an authority's certificate, or of its key. */
#define ROOTS_MAX                    4u    /* Authorities that a machine trusts at one time. */
#define JOIN_TOKENS_MAX              256u  /* That are known at one time, spent ones included. */
#define CLIENTS_MAX                  1024u /* Certificates of clients that are known at one time. */
#define CLIENT_CERTIFICATE_MAX       8192u /* Bytes of one. */
#define REMOVED_REMEMBERED_MAX       4096u /* Machines that were removed, and are told so. */
