"""Lists of users, as spreadsheets write and read them: organization, name, email, groups, enabled. Nothing secret goes
either way."""
