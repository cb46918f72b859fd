"""How fast is it, beside the plain definition and beside what the machine could do?"""
