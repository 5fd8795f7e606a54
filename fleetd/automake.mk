# fleetd
