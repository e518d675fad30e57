"""What every run of a study is doing: gathered from what runs write, shown in several ways."""
