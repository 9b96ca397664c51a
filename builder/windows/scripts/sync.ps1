function Invoke-GiltVerb($request) {
    $script:giltStep = 'flush'
    Get-Volume | Where-Object { $_.DriveLetter -and ($_.DriveType -eq 'Fixed') } | ForEach-Object { Write-VolumeCache -DriveLetter $_.DriveLetter }
    @{}
}
