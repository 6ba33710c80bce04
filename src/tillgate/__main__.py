from tillgate.cli import main

main()
