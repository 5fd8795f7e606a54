# fleetctl
