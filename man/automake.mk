# Manuals.
dist_man_MANS = man/fleetctl.1 man/fleetd.8 man/fleet.conf.5 man/fleet.unit.5 man/fleet-api.7
