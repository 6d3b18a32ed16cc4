"""The study with people (section C): the page that raters see, and what their votes say."""
