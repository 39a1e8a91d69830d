-- What "verified" rests on, who asked to be left alone and until when, and what else a run has to remember for others.

COMMENT ON TABLE sync.capabilities IS 'What the API was seen to do for each time field, and so how it is read';
