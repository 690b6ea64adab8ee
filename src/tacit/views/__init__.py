"""Views: pure functions that change a whole batch on its device."""
