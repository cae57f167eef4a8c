"""Imported once by the server that the processes of ``racers.race`` are forked from: saves each the imports."""

import django

django.setup()
