# Unit names, unit files, [X-Fleet].
