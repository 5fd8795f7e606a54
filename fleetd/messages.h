/* SPDX-License-Identifier: Apache-2.0 */
/* The messages in the journal that programs may look for, by MESSAGE_ID= (systemd.journal-fields(7)). An id
 * is for ever: it is never given another meaning. data/catalog/fleet.catalog explains each ("journalctl -x");
 * a test keeps the two in step. Besides it, where they apply: UNIT= (the fleet unit), FLEET_MACHINE= (a
 * machine id), FLEET_REASON= (why), FLEET_TERM= (of the leadership). */
#pragma once

#define MESSAGE_LEADS              "MESSAGE_ID=8ceef4fb13a3dbb55a2691be431db263"
#define MESSAGE_YIELDS             "MESSAGE_ID=e280f57b5afcd682b103945d62ae2f97"
#define MESSAGE_PLACED             "MESSAGE_ID=b1c757d58bd113f19f43a9aa57c40420"
#define MESSAGE_UNPLACED           "MESSAGE_ID=7fd1a872a3a220c462113d9e79eed456"
#define MESSAGE_UNIT_FAILS         "MESSAGE_ID=d807712917bc437574bbdc568eb5d9f9"
#define MESSAGE_MACHINE_LOST       "MESSAGE_ID=c99b484cae130edfe8bac893dfd89b50"
#define MESSAGE_MACHINE_BACK       "MESSAGE_ID=971f4203860af64fd3276ee91363f426"
#define MESSAGE_MACHINE_MISSING    "MESSAGE_ID=90064872f370e8253c6ef135e28543c2"
#define MESSAGE_DAEMON_SILENT      "MESSAGE_ID=b8247742f9bbff6c3b80f6575a67ca6b"
#define MESSAGE_BRAKE_ON           "MESSAGE_ID=ae422ea26040db12578781bf4f42bc8c"
#define MESSAGE_BRAKE_OFF          "MESSAGE_ID=a0be3c158ef4d1607342f885654b4d6a"
#define MESSAGE_SHUTDOWN           "MESSAGE_ID=2f5d31d04cf865661918f72c1c86282f"
#define MESSAGE_STAYS              "MESSAGE_ID=7d220f7854ed4fc96bed0b8b1d5131d6"
#define MESSAGE_GOES_DOWN          "MESSAGE_ID=aab4b387eac33bd42553b56aac7d2c25"
#define MESSAGE_MACHINE_JOINS      "MESSAGE_ID=5f983d1b965e5e329afb4cdc27dc91d1"
#define MESSAGE_JOIN_REFUSED       "MESSAGE_ID=29165f6d283193a27b8a41a1bfe5d595"
#define MESSAGE_REMOVED            "MESSAGE_ID=674b05b5ca3f25563178afc26f8ff933"
#define MESSAGE_RENEWED            "MESSAGE_ID=a68e47edf44f29b90944a0120aeed8fa"
#define MESSAGE_ROTATION           "MESSAGE_ID=a27af548f67b3d364ce7bbe2a0bb49a4"
#define MESSAGE_VOTERS             "MESSAGE_ID=16af23e2f38c0ae750ac414462e92cc2"
#define MESSAGE_SETTING            "MESSAGE_ID=e8825fa3b7214816800171aab67d8264"
#define MESSAGE_RELOADED           "MESSAGE_ID=2d872e77688ea0f6ecb3160503d59107"
#define MESSAGE_RELOAD_REFUSED     "MESSAGE_ID=8371f72e2b47af4aa2452ba3c4ce624b"
#define MESSAGE_NEEDS_RESTART      "MESSAGE_ID=6a593c1509c014bb99202f875172d02b"
#define MESSAGE_MACHINE_ID_CHANGED "MESSAGE_ID=84f9eae2e4082061583c27bd4dfab559"
#define MESSAGE_SYSTEMD_LOST       "MESSAGE_ID=9e4d695c24aace7fe8e76ff00e23dbca"
#define MESSAGE_SOCKET_LEFT_OUT    "MESSAGE_ID=77d2d229cf5c93078049c1db07528c33"
#define MESSAGE_FATAL              "MESSAGE_ID=bc297ec504bc411090998c83b3069825"
