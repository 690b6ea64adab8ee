"""Methods that learn values: numbers such as an age or a measured length."""
