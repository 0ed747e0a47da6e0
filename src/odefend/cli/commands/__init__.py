"""The commands as the user sees them: options and help. What they do is in the modules beside this folder, imported when
they are called, so that help is quick."""
