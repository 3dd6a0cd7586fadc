@echo off
rem Greets line by line. Usage: hello.cmd [NAME] [EXIT_CODE]
setlocal
set "name=%~1"
if "%name%"=="" set "name=world"
set "code=%~2"
if "%code%"=="" set "code=0"
for /l %%n in (1,1,5) do echo %%n: hello, %name%, from Windows on the host
exit /b %code%
