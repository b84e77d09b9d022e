"""What agents and console share. Imports go down only, from floor to floor (`lint-imports` checks it).

5  ``operations``   what people and clocks do to a running pipeline: dead letters, status, pauses, retention
4  ``delivery``     one entry: read, handle, settle
3  ``reports``      pages for people           ``vision``  describing a photo
   ``sessions``     one batch of photos        ``fetching``  bringing bytes in
   ``webhooks``     who hears of which ends
2  ``sharepoint``   Microsoft Graph            ``photos``  opening and decoding     ``telemetry``
1  ``columns``      a library's columns        ``retry``   ``photo_store``   ``settings``   ``process_exit``
"""
