# UNTESTED. A sketch of how a task at logon would start the broker as the user: a service
# of the system would not have the user's rights on the engine.
param(
    [string]$Program = "$env:ProgramFiles\Longshore\longshore.exe",
    [switch]$Remove
)
$ErrorActionPreference = 'Stop'
$name = 'Longshore'
if ($Remove) {
    Unregister-ScheduledTask -TaskName $name -Confirm:$false
    return
}
$action = New-ScheduledTaskAction -Execute $Program -Argument 'serve'
$trigger = New-ScheduledTaskTrigger -AtLogOn -User $env:USERNAME
$principal = New-ScheduledTaskPrincipal -UserId $env:USERNAME -LogonType Interactive -RunLevel Limited
$settings = New-ScheduledTaskSettingsSet -RestartCount 3 -RestartInterval (New-TimeSpan -Minutes 1) `
    -ExecutionTimeLimit ([TimeSpan]::Zero)
Register-ScheduledTask -TaskName $name -Action $action -Trigger $trigger -Principal $principal -Settings $settings
Start-ScheduledTask -TaskName $name
