"""``mpisweep watch`` on a terminal: a full screen with panes, keys and requests.

The screen is text and styles that :mod:`~mpisweep.views.screen.drawing` computes from the facts of a sweep
(:mod:`~mpisweep.views.screen.facts`) and from what the user has chosen (:mod:`~mpisweep.views.screen.look`);
both are pure.  :mod:`~mpisweep.views.screen.terminal` shows it with curses, the library of Python for it: it
knows the keys and the abilities of each terminal, sends only what has changed, and costs 3 ms to import.  A
thread (:mod:`~mpisweep.views.screen.reader`) reads the files, so that keys work while a large sweep is read.
"""
