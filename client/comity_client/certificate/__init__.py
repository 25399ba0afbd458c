"""The certificate of an act: what a court needs to check it, with no relay and no account.

One file holds the genesis, the signed core, its proof of place with the witnesses' cosignatures,
who admitted the device that signed, the recipient's receipts and witnesses' stamps when there are
some, and, when its maker chose so, what opens the act. It is shown in two forms that a person can
read: a page that verifies itself in a browser, from a disk, and a paper with both inside.

    record.py   what the file holds, and its one form
    check.py    everything that must hold, in Python
    gather.py   makes one out of what a desk has and the relay's tiles
    facts.py    the rows that a reader sees, in five languages, from texts.json
    page.py     the page: page.html, page.css, page.js, mldsa.js
    paper.py    the paper: paper.typ

Rules:

* [V-4] A certificate is verified with nothing but itself and the printed hash of the genesis, and
  shows what was not opened.
"""
