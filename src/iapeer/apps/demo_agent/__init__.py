"""Demo agent: a small terminal program that behaves like the big agent CLIs and needs no model.

It takes typed and pasted text, queues what comes while it works, keeps a transcript, runs a prompt
hook and answers peers through the `send_to_peer` tool of the daemon.

Keys: Enter sends, C-j makes a new line, Backspace, C-u empties, Escape interrupts the turn, C-c
twice or C-d or /exit leaves. A text that BEGINS with ! or / is a command, as in the real programs;
`!` is only recorded (type "shell"), never run.

A message may hold directives, one per line; a message without any is answered once with
"got it: <first line>". An answer (topic `re:...`, or a body that begins with "got it" or END) is
never answered.

  ASK <peer> <text>          send to a peer and report its answer to whoever asked
  SEND <peer> <text>         send to a peer
  REPLY <text>               answer the sender with this text
  SAY <text>                 write on the own screen
  SLOW <seconds>             work that long (Escape interrupts)
  HOLD <file>                work until that file is there (Escape interrupts)
  PINGPONG <n>               reply PINGPONG n-1 to the sender, until 0
  RING <n> <peer> [...]      pass RING n-1 on to the first peer, which moves to the end, until 0
  APIERROR                   end the turn as if the model's API had failed
  EXIT <code>                leave with this exit status
  NOTHING                    do not answer
  END                        do not answer and read no further

Environment: DEMO_TRANSCRIPT (file), DEMO_PROMPT_HOOK (JSON list: argv), DEMO_GHOST=1 (suggestion
in the empty composer), DEMO_MISBEHAVE (comma list: swallow_enter[=n], late_enter=<s>,
late_clear=<s>, keeps_paste[=front], exit_at_start=<code>, hang_at_start, dialog, lose_queue,
slow_start=<s>, crash_on_message, no_hook, no_transcript, nothing_to_compact, never_compacts,
gives_back).
PEER_MCP_URL, PEER_IDENTITY, PEER_TOKEN and PEER_SESSION are set by the daemon.
"""
