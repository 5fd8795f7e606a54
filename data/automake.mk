# What is installed beside the programs: unit files, default configuration, completions.
# An upgrade keeps the configuration that is there, and its removal what was changed.
fleetconfdir = $(sysconfdir)/fleet
EXTRA_DIST += data/fleet.conf
install-data-local:
	$(MKDIR_P) '$(DESTDIR)$(fleetconfdir)'
	test -e '$(DESTDIR)$(fleetconfdir)/fleet.conf' || \
		$(INSTALL_DATA) $(top_srcdir)/data/fleet.conf '$(DESTDIR)$(fleetconfdir)/fleet.conf'
uninstall-local:
	! cmp -s $(top_srcdir)/data/fleet.conf '$(DESTDIR)$(fleetconfdir)/fleet.conf' || \
		rm -f '$(DESTDIR)$(fleetconfdir)/fleet.conf'

# An example, enabled by nobody: for how long a shutdown waits.
logindexampledir = $(docdir)/examples/logind.conf.d
dist_logindexample_DATA = data/logind.conf.d/50-fleet.conf

sysusersdir = $(prefix)/lib/sysusers.d
dist_sysusers_DATA = data/sysusers.d/fleet.conf
catalogdir = $(prefix)/lib/systemd/catalog
dist_catalog_DATA = data/catalog/fleet.catalog
# Where polkit looks, whatever the prefix; a number in front, as there: before the defaults of the distribution.
polkitdir = $(datadir)/polkit-1/rules.d
dist_polkit_DATA = data/polkit-1/rules.d/50-fleet.rules
tmpfilesdir = $(prefix)/lib/tmpfiles.d
dist_tmpfiles_DATA = data/tmpfiles.d/fleet.conf

# The one in the source tree names /usr/sbin and works as it is; the installed one names where fleetd really is.
EXTRA_DIST += data/fleetd.service data/fleet-lease.service
systemdsystemunit_DATA = data/installed/fleetd.service data/installed/fleet-lease.service
dist_systemdsystemunit_DATA = data/fleetd.socket
CLEANFILES += data/installed/fleetd.service data/installed/fleet-lease.service
data/installed/fleet-lease.service: data/fleet-lease.service Makefile
	$(AM_V_GEN)$(MKDIR_P) data/installed && sed 's,/usr/libexec/,$(libexecdir)/,' \
		$(top_srcdir)/data/fleet-lease.service >$@
data/installed/fleetd.service: data/fleetd.service Makefile
	$(AM_V_GEN)$(MKDIR_P) data/installed && sed 's,/usr/sbin/,$(sbindir)/,' $(top_srcdir)/data/fleetd.service >$@

bashcompletiondir = $(datadir)/bash-completion/completions
EXTRA_DIST += data/completions/fleetctl.bash
bashcompletion_DATA = data/installed/fleetctl
CLEANFILES += data/installed/fleetctl
data/installed/fleetctl: data/completions/fleetctl.bash
	$(AM_V_GEN)$(MKDIR_P) data/installed && cp $(top_srcdir)/data/completions/fleetctl.bash $@

zshcompletiondir = $(datadir)/zsh/site-functions
dist_zshcompletion_DATA = data/completions/_fleetctl
fishcompletiondir = $(datadir)/fish/vendor_completions.d
dist_fishcompletion_DATA = data/completions/fleetctl.fish
